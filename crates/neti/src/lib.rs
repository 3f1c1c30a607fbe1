#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Layers are counted in the order of execution. Parameters are f32 leaves under the official names, whatever the text encoder's
//! dtype, and depend on the seed alone. Knows no tokenizer, U-Net, trainer or file.

mod config;
mod dropout;
mod mapper;
mod text;

pub use config::Config;
pub use dropout::nested_dropout;
pub use mapper::Mapper;
pub use text::Prompts;
