#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Knows nothing of tokenizers, diffusion and image files.

mod config;
mod encoder;
mod folder;
mod model;
mod processor;
mod text;
mod vision;

pub use config::{ClipConfig, TextConfig, VisionConfig};
pub use model::{ClipModel, ClipTextModelWithProjection, ClipVisionModelWithProjection, cosine_similarity};
pub use processor::{ImageProcessor, Resampler, Size};
pub use text::ClipTextModel;
pub use vision::{ClipVisionModel, check_pixel_values};
