#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Knows nothing of training, and of models only names and shapes. What is written is complete or absent: folders are filled under
//! a temporary name beside their own. Nothing is overwritten, and an exported folder shares no files with its base model. The same
//! input makes the same bytes.

mod base;
mod components;
mod custom_diffusion;
mod embeddings;
mod family;
mod folder;
mod names;
mod open_clip;
mod single_file;
mod staging;
mod text_encoder;

pub use base::{Replaced, Unet, notes};
pub use components::Components;
pub use custom_diffusion::{is_custom_diffusion, load_custom_diffusion, save_custom_diffusion};
pub use embeddings::{embedding_in, load_embeddings, name_in_prompts, save_embeddings};
pub use family::Family;
pub use folder::{USAGE, diffusers_folder};
pub use single_file::{SingleFile, single_file};
pub use staging::ensure_new_folder;
