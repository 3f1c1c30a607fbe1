//! A folder of a user's photos, validated before anything slow begins, and the random views that training sees.
//!
//! ```
//! use photos::{Augmentation, PhotoFolder};
//!
//! # let folder = tempfile::tempdir()?;
//! # image::RgbImage::new(60, 40).save(folder.path().join("front.png"))?;
//! # std::fs::write(folder.path().join("notes.txt"), "")?;
//! let opened = PhotoFolder::open(folder.path())?;
//! assert_eq!(opened.photos[0].name(), "front.png");
//! assert_eq!(opened.skipped[0].to_string(), "notes.txt is not a JPEG, PNG, WebP, BMP, GIF or TIFF picture");
//!
//! let augmentation = Augmentation { resolution: 32, ..Augmentation::default() };
//! let photo = &opened.photos[0].pixels;
//! let view = augmentation.draw(7, photo.width(), photo.height());
//! assert_eq!(view.render(photo).dimensions(), (32, 32));
//! # anyhow::Ok(())
//! ```
//!
//! Drawing and rendering are apart, so that a [`View`] can be logged, cached by, and rendered in any thread.
//!
//! Invariants: knows nothing of tensors or models; a file is judged by its contents, never by its name alone; every
//! file of a folder is either a photo, named as skipped or in a note, or named in the error; pixels are sRGB; a seed means the same view everywhere.

mod companions;
mod contents;
mod decode;
mod error;
mod folder;
mod jpeg;
mod profile;
mod resample;
mod rotate;
mod sheet;
mod view;

pub use decode::MAX_PIXELS;
pub use error::{Error, InvalidAugmentation, Rejected};
pub use folder::{Options, Photo, PhotoFolder};
pub use sheet::contact_sheet;
pub use view::{Augmentation, View};
