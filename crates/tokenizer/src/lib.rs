#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Knows nothing of tensors or models. An [`Encoding`] has exactly [`Tokenizer::max_length`] ids. A placeholder is one token
//! wherever it stands.

mod clip;
mod error;
mod folder;
mod placeholder;
mod save;
mod span;
mod special;
mod tokenizer;

pub use error::Error;
pub use folder::FILES;
pub use tokenizer::{Encoding, Tokenizer, Truncation};
