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
mod init;
mod parameters;
mod save;
mod scope;
mod view;

pub use archive::{Archive, OpenError, Variant};
pub use build::{LoadError, build, is_training_state};
pub use config::read_config;
pub use init::{Init, Random};
pub use parameters::Parameters;
pub use save::{save, save_with_metadata};
pub use scope::{Problem, Scope, Source, Tensors};
pub use view::View;
