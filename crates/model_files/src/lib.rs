//! A base model on disk: a folder in the diffusers layout, or one `.safetensors` file in the layout of the original code
//! (LDM, "latent diffusion models"), as Stable Diffusion 1.x, 2.x and XL are published and shared.
//!
//! ```
//! use model_files::{BaseModel, Component, ModelOptions};
//!
//! # let fixtures = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"));
//! let model = BaseModel::open(&fixtures.join("tiny-sd21"), &ModelOptions::default())?;
//! assert_eq!(model.image_size()?, 128);
//! let unet = model.archive(Component::Unet)?; // under diffusers' names, whichever the layout
//! assert!(unet.shapes().any(|(name, _)| name == "conv_in.weight"));
//! # anyhow::Ok(())
//! ```
//!
//! # What a single file does not say
//!
//! A file has tensors and, if its author cared, metadata by the ModelSpec standard. Of the published models everything else
//! follows from the tensors' names and shapes, with these exceptions:
//!
//! | | taken from |
//! |---|---|
//! | what the U-Net predicts | [`ModelOptions::prediction_type`], else ModelSpec; else Stable Diffusion 1.x predicts noise, and for 2.x the option is needed |
//! | the image size | ModelSpec, else 768 pixels for a 2.x that predicts velocity and 512 for all others |
//! | the vocabulary | [`ModelOptions::tokenizer`], else CLIP's, which is part of crate `tokenizer` |
//! | the scheduler | that of the published folders: PNDM, or DDIM for a 2.x that predicts velocity |
//! | heads, groups and the like of other geometries | [`ModelOptions::config`] |
//!
//! Nothing is copied: a single file's tensors are views of the mapped file under diffusers' names, where the fused
//! projections of OpenCLIP are three views of one tensor, and its unused last layer is none.
//!
//! Invariants: knows names, shapes and configs, but builds no model and writes no file. [`names`] are used in both
//! directions: here to read a single file, in crate `export` to write one.

mod component;
mod configs;
mod folder;
mod model;
mod modelspec;
pub mod names;
mod recognition;
mod single_file;

pub use component::Component;
pub use folder::{DEFAULT_SAMPLE_SIZE, ModelFolder};
pub use model::BaseModel;
pub use options::{ModelOptions, PredictionType};
