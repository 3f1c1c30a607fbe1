//! A folder of a user's photos, validated before anything slow begins, and the augmented crops that training sees.
//!
//! ```
//! use photos::{Augmentation, PhotoFolder};
//!
//! # let folder = tempfile::tempdir()?;
//! # image::RgbImage::new(60, 40).save(folder.path().join("front.png"))?;
//! # std::fs::write(folder.path().join("notes.txt"), "")?;
//! let opened = PhotoFolder::open(folder.path())?;
//! assert_eq!(opened.photos[0].name(), "front.png");
//! assert_eq!(opened.skipped[0].to_string(), "notes.txt is not a JPEG, PNG, WebP, BMP, GIF or TIFF image");
//!
//! let augmentation = Augmentation { resolution: 32, ..Augmentation::default() };
//! let photo = &opened.photos[0].pixels;
//! let crop = augmentation.sample(7, photo.width(), photo.height());
//! assert_eq!(crop.render(photo).dimensions(), (32, 32));
//! # anyhow::Ok(())
//! ```
//!
//! Sampling and rendering are apart, so that an [`AugmentedCrop`] can be logged, be the key of a cache, and be rendered in
//! any thread.
//!
//! Invariants: knows nothing of tensors or models; a file is judged by its contents, never by its name alone; every
//! file of a folder is either a photo, named as skipped or in a note, or named in the error; pixels are sRGB; a seed means
//! the same crop everywhere.

mod augmentation;
mod companions;
mod contact_sheet;
mod contents;
mod decode;
mod error;
mod folder;
mod icc;
mod jpeg;

pub use augmentation::{Augmentation, AugmentedCrop};
pub use contact_sheet::contact_sheet;
pub use decode::MAX_PIXELS;
pub use error::{Error, InvalidAugmentation, Rejected};
pub use folder::{Options, Photo, PhotoFolder};
