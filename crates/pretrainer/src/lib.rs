//! The miniature: a base model with Stable Diffusion's architecture, small enough to be trained from nothing on a laptop
//! and to be carried in a repository.
//!
//! Three components learn one after the other from composed [`scenes`]: the VAE to rebuild pictures, CLIP to match them
//! with their captions, and the U-Net to denoise the VAE's latents under CLIP's text encoder. [`Pretraining`] trains one
//! component in its folder, killed at any moment and resumed; [`assemble`] makes a folder in the diffusers layout of all
//! three; [`measure`] says how good it is on compositions that no training scene had.
//!
//! ```no_run
//! use pretrainer::{Part, Pretraining, Recipe, Sources};
//!
//! let sources = Sources::open("fixtures".as_ref(), "drawings".as_ref())?;
//! for part in Part::ALL {
//!     let recipe = Recipe::of(part);
//!     let mut pretraining = Pretraining::open(part, recipe, &sources, "runs/miniature".as_ref(), tch::Device::Cpu)?;
//!     pretraining.run(&|| false, &mut |report| eprintln!("{part} {}", report.step))?;
//! }
//! pretrainer::assemble("runs/miniature".as_ref(), &sources, "runs/miniature/model".as_ref())?;
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: all randomness of step n of a component derives from (seed, component, n); masters and what a training keeps are f32, the model fp16; no
//! drawing and no name of a held-out subject is ever seen.

mod assemble;
mod autoencoder;
mod checkpoint;
mod contrast;
mod denoiser;
mod measure;
mod pace;
mod part;
mod prefetch;
mod pretraining;
mod recipe;
mod shapes;
mod sources;
mod start;
mod vocabulary;

pub use assemble::assemble;
pub use measure::{Measures, measure};
pub use pace::seconds_per_step;
pub use part::Part;
pub use pretraining::{Pretraining, Report, recorded_steps};
pub use recipe::{Dtype, MAX_STEPS, Recipe};
pub use sources::Sources;
pub use start::{MADE, start_from};
