//! Weights: safetensors files in and out, and parameters under the names they have there.
//!
//! A model asks a [`Scope`] for its parameters by name and shape; [`build`] answers from any [`Source`], collects
//! everything that is wrong (missing, unexpected, mis-shaped, mis-typed) and reports it all at once:
//!
//! ```
//! use tch::{Device, Kind, Tensor};
//! use weights::{Archive, Init, Scope};
//!
//! struct Scale(Tensor);
//! impl Scale {
//!     fn new(vs: &Scope, channels: i64) -> Self {
//!         Self(vs.get("weight", &[channels], Init::Const(1.0)))
//!     }
//! }
//!
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("scale.safetensors");
//! let tensor = Tensor::arange(3, (Kind::Float, Device::Cpu));
//! weights::save(&file, [("norm.weight", &tensor)])?;
//!
//! let source = Archive::open(&file)?;
//! let (scale, parameters) =
//!     weights::build(&source, (Kind::Float, Device::Cpu), |vs| Ok(Scale::new(&(vs / "norm"), 3)))?;
//! assert_eq!(scale.0, tensor);
//! assert_eq!(parameters.count(), 3);
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! Invariants: files are memory-mapped and their tensors copied once, straight into parameters; pickle files are
//! never opened; a file that this crate writes is complete or absent. Knows nothing of any model.

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
