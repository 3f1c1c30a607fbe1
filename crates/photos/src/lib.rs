#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Knows nothing of tensors or models; a file is judged by its contents, but masks and captions by their names: they are never
//! photos; every file of a folder is either a photo, used with one, named as skipped or in a note, or named in the error; without
//! options what lies beside photos changes nothing; pixels are sRGB; a seed means the same crop everywhere.

mod augmentation;
mod caption;
mod companions;
mod contact_sheet;
mod contents;
mod crop;
mod decode;
mod error;
mod folder;
mod icc;
mod jpeg;
mod mask;
mod repeats;
mod shapes;
mod size_augmentation;
mod unit;

pub use augmentation::{Augmentation, AugmentedCrop};
pub use caption::Caption;
pub use contact_sheet::contact_sheet;
pub use crop::Crop;
pub use decode::MAX_PIXELS;
pub use error::{Error, InvalidAugmentation, Rejected};
pub use folder::{Options, Photo, PhotoFolder};
pub use mask::Mask;
pub use shapes::Shapes;
pub use size_augmentation::{ApparentSize, Place, PlacedPhoto, Region, SizeAugmentation, SizeRules};
