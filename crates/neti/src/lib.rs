#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Layers are counted in the order of execution. Parameters are f32 leaves under the official names, whatever the text encoder's
//! dtype, and depend on the seed alone. A file of [`Mapper::write`] needs nothing else but the base model. Knows no tokenizer, U-Net
//! or trainer.

mod config;
mod dropout;
mod file;
mod mapper;
mod text;

pub use config::Config;
pub use dropout::nested_dropout;
pub use file::is_mapper;
pub use mapper::Mapper;
pub use text::Prompts;
