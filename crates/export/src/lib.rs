//! Trained models and embeddings as files for other programs.
//!
//! - [`save_embeddings`]: `learned_embeds.safetensors`, which diffusers, A1111's web UI and ComfyUI read.
//!   [`load_embeddings`] reads theirs, kohya's and OneTrainer's.
//! - [`diffusers_folder`]: a whole model folder for Python's `StableDiffusionPipeline.from_pretrained`.
//! - [`single_file`]: a checkpoint in the layout of the original code (LDM), for A1111's web UI and ComfyUI.
//!   [`Components`] converts both ways.
//!
//! ```
//! use export::{SingleFile, Unet};
//! use model_files::{BaseModel, ModelOptions};
//! use tch::{Device, Kind, Tensor};
//!
//! # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
//! # let folder = tempfile::tempdir()?;
//! let path = std::path::Path::new(fixtures).join("tiny-sd21");
//! let base = BaseModel::open(&path, &ModelOptions::default())?; // or a single file
//! let out = folder.path().join("exported");
//! let rows = Tensor::ones([2, 32], (Kind::Float, Device::Cpu));
//! export::diffusers_folder(&base, &out, None, Some(("<dog>", &rows)))?;
//! assert!(out.join("tokenizer/added_tokens.json").exists());
//!
//! let file = folder.path().join("dog.safetensors");
//! let unet = Some(Unet::Folder(&path.join("unet"))); // for example of a run
//! export::single_file(&base, &file, unet, &SingleFile { kind: Kind::Half, ..SingleFile::default() })?;
//! let embedding = folder.path().join("dog_embeds.safetensors");
//! export::save_embeddings(&embedding, "<dog>", &rows)?;
//! assert_eq!(export::name_in_prompts(&embedding), "dog_embeds");
//! # anyhow::Ok(())
//! ```
//!
//! # How loaders read a single file
//!
//! A new token has no place in it. A1111 and ComfyUI read the embedding from a file of its own in their `embeddings`
//! folder and know it by that file's name, `dog_embeds` above ([`name_in_prompts`]); ComfyUI reads the name up to the first
//! `<`, `[` or space, so choose one without. A checkpoint that predicts velocity (2.1 at 768 pixels) both recognise by its numbers.
//!
//! Of OpenCLIP, Stable Diffusion 2.x needs 23 of 24 layers, and diffusers keeps no more. The file has a copy of the
//! 23rd layer in place of the last one, and a `text_projection` and a `logit_scale` that nothing computes with: loaders
//! that build the whole OpenCLIP find all of its parameters. The schedule's tables (`alphas_cumprod` and the like) are
//! not written; no loader reads them.
//!
//! Invariants: knows nothing of training, and of models only names and shapes. What is written is complete or absent:
//! folders are filled under a temporary name beside their own.
//! Nothing is overwritten, and an exported folder shares no files with its base model. The same input makes the same bytes.

mod base;
mod components;
mod embeddings;
mod family;
mod folder;
mod names;
mod open_clip;
mod single_file;
mod staging;
mod text_encoder;

pub use base::{Unet, notes};
pub use components::Components;
pub use embeddings::{load_embeddings, name_in_prompts, save_embeddings};
pub use family::Family;
pub use folder::{USAGE, diffusers_folder};
pub use single_file::{SingleFile, single_file};
