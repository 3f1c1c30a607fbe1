//! Images without tensors: PNG files with text chunks, labelled grids, line plots, and resizing and rotation that equal
//! Pillow's bit by bit.
//!
//! ```
//! use images::{Grid, RgbImage};
//!
//! let red = RgbImage::from_pixel(64, 64, image::Rgb([200, 30, 30]));
//! let mut grid = Grid::new(2);
//! grid.push(red.clone(), "seed 0");
//! grid.push(red, "seed 1");
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("grid.png");
//! images::save_png(&path, &grid.draw(), &[("Software", "an example")])?;
//! assert_eq!(images::png_texts(&path)?, [("Software".to_owned(), "an example".to_owned())]);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: knows nothing of tensors or models; a file it writes is complete or absent, and what a model has generated
//! says so ([`save_generated`]); text is drawn from a font of its own, and only characters that it lacks from the system's.

mod axis;
mod grid;
mod plot;
mod png_file;
mod resample;
mod rotate;
mod svg;

pub use axis::Scale;
pub use grid::Grid;
pub use image::RgbImage;
pub use plot::Plot;
pub use png_file::{mark_generated, png_texts, save_generated, save_new_generated, save_png};
pub use resample::{Filter, resize, resize_part, with_short_side};
pub use rotate::Rotation;
pub use svg::Escaped;
