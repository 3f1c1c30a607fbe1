#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Files are memory-mapped and their tensors copied once, straight into parameters; pickle files are never opened; a file that
//! this crate writes is complete or absent. Knows nothing of any model.

mod archive;
mod build;
mod config;
mod dtype;
mod parameters;
mod random;
mod save;
mod scope;
mod view;

pub use archive::{Archive, OpenError, Variant};
pub use build::{LoadError, build, is_training_state};
pub use config::read_config;
pub use parameters::Parameters;
pub use random::Random;
pub use save::{save, save_with_metadata};
pub use scope::{Init, Problem, Scope, Source, Tensors};
pub use view::View;
