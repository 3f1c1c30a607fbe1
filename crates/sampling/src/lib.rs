#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! An image is never made of numbers that are not finite ([`NotFinite`]); knows nothing of training, files that are written, or
//! terminals.

mod conditioning;
mod denoise;
mod finite;
mod image;
mod noise;
mod notes;
mod pipeline;
mod prompts;
mod reference;
mod request;
mod words;

pub use conditioning::Conditioning;
pub use finite::{NotFinite, Origin};
pub use image::image_to_tensor;
pub use model_files::{BaseModel, ModelFolder, ModelOptions};
pub use pipeline::{Pipeline, PipelineParameters};
pub use prompts::{PromptEmbeds, SecondTextEncoder, SizeConditioning};
pub use reference::{ReferenceConditioning, ReferenceMask, ReferencePass};
pub use request::{Request, Settings, Step, check_guidance_scale, quoted};
pub use words::Word;
