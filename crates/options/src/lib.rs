//! What users choose by name, and what a configuration says of parts that compute: plain data, shared by the crates that
//! parse it and those that act on it.
//!
//! ```
//! use options::{DeviceChoice, Dtype, SchedulerKind};
//!
//! assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
//! assert_eq!("bf16".parse(), Ok(Dtype::Bf16));
//! assert_eq!("dpm-solver++".parse::<SchedulerKind>()?.class_name(), "DPMSolverMultistepScheduler");
//! # Ok::<(), options::UnknownName>(())
//! ```
//!
//! Invariants: every name parses to the value that displays it; needs no LibTorch.

mod adapter;
mod device;
mod embedding_form;
mod generation;
mod masked_loss;
mod model;
mod named;
pub mod optimizer;
pub mod regularizer;
mod seed;

pub use adapter::{Adapter, LoraKeys, LoraTargets};
pub use device::DeviceChoice;
pub use embedding_form::EmbeddingForm;
pub use generation::GenerationSettings;
pub use masked_loss::MaskedLoss;
pub use model::ModelOptions;
pub use named::{Dtype, LearningRateSchedule, PredictionType, SchedulerKind, UnknownName};
pub use seed::derive_seed;
