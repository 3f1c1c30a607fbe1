//! The miniature: a base model with Stable Diffusion's architecture, small enough to be trained from nothing on a laptop
//! and to be carried in a repository.
//!
//! Three parts are trained one after the other on composed [`scenes`]: the VAE to rebuild images, CLIP to match them
//! with their captions, and the U-Net to denoise the VAE's latents under CLIP's text encoder. [`Pretraining`] trains one
//! part in its folder, and resumes after it was killed at any moment; [`assemble`] makes a folder in the diffusers layout of all
//! three; [`measure`] measures it on compositions that no training scene had.
//!
//! ```no_run
//! use pretrainer::{Config, Part, Pretraining, Sources};
//!
//! let sources = Sources::open("drawings".as_ref())?;
//! for part in Part::ALL {
//!     let config = Config::preset(part);
//!     let mut pretraining = Pretraining::open(part, config, &sources, "runs/miniature".as_ref(), tch::Device::Cpu)?;
//!     pretraining.run(&|| false, &mut |report| eprintln!("{part} {}", report.step))?;
//! }
//! pretrainer::assemble("runs/miniature".as_ref(), &sources, "runs/miniature/model".as_ref())?;
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: all randomness of step n of a part derives from (seed, part, n); parameters and the optimiser's state are f32,
//! the model's files fp16; no drawing and no name of a held-out subject is ever seen.

mod assemble;
mod autoencoder;
mod config;
mod contrast;
mod denoiser;
mod folder;
mod measure;
mod pace;
mod part;
mod prefetch;
mod pretraining;
mod shapes;
mod sources;
mod start;
mod trained;
mod training;
mod vocabulary;

pub use assemble::assemble;
pub use config::{Config, Dtype, MAX_STEPS};
pub use contrast::{accuracy, contrastive_loss, prepare};
pub use folder::MADE;
pub use measure::{Measures, measure};
pub use pace::seconds_per_step;
pub use part::Part;
pub use pretraining::{Pretraining, recorded_steps};
pub use shapes::{Encoder, IMAGE_SIZE, clip_config, preprocessor};
pub use sources::Sources;
pub use start::start_from;
pub use training::{Component, Report, Training};
