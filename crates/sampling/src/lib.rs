//! From a model, a folder or a single file, and a prompt to images.
//!
//! ```
//! use std::path::Path;
//! use sampling::{Pipeline, Request, Settings};
//! use tch::{Device, Kind};
//!
//! # let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-sd21"));
//! let pipeline = Pipeline::from_folder(folder, (Kind::Float, Device::Cpu))?;
//! let requests = [Request::new("a photo of a cat", 0), Request::new("a photo of a dog", 1)];
//! let settings = Settings { steps: 2, ..pipeline.default_settings() };
//! let images = pipeline.generate(&requests, &settings, &mut |_| {})?;
//! assert_eq!(images[0].dimensions(), (128, 128));
//! # anyhow::Ok(())
//! ```
//!
//! An image depends on its own request and the settings alone, not on what shares its batch; its noise is that of
//! `torch.Generator("cpu").manual_seed(seed)`, so diffusers makes the same image from the same seed.
//!
//! Invariants: an image is never made of numbers that are not finite ([`NotFinite`]); knows nothing of training, files that are written, or terminals.

mod denoise;
mod finite;
mod image;
mod noise;
mod notes;
mod pipeline;
mod request;
mod words;

pub use finite::{NotFinite, Origin};
pub use image::image_to_tensor;
pub use model_files::{BaseModel, ModelFolder, ModelOptions};
pub use pipeline::Pipeline;
pub use request::{Request, Settings, Step, check_guidance_scale, quoted};
pub use words::Word;
