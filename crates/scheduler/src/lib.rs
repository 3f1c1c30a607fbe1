#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Knows nothing of models, prompts or guidance; uses no random number (noise is always an argument), so equal inputs give equal
//! outputs.

mod build;
mod config;
mod ddim;
mod ddpm;
mod dpm_solver;
mod error;
mod euler;
mod euler_ancestral;
mod forward;
mod noise_schedule;
mod pndm;
mod prediction;
mod sigmas;
mod spacing;
mod step;
mod timesteps;

pub use config::{BetaSchedule, FinalSigmas, SchedulerConfig, VarianceType};
pub use error::Error;
pub use forward::ForwardProcess;
pub use noise_schedule::NoiseSchedule;
pub use options::{PredictionType, SchedulerKind};
pub use spacing::TimestepSpacing;
pub use step::Scheduler;
