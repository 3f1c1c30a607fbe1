#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Uses no random numbers (the caller gives the noise) and reads no images; knows nothing of prompts, timesteps or pipelines. The
//! dtype of the input is what is computed in. Gradients flow through everything; use [`tch::no_grad`] or leave the parameters
//! frozen, as they are when loaded.

mod attention;
mod config;
mod decoder;
mod encoder;
mod mid_block;
mod model;
mod posterior;
mod tiling;

pub use config::Config;
pub use model::AutoencoderKl;
pub use posterior::Posterior;
pub use tiling::Tiling;
