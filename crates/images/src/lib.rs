//! What people look at: PNG files with text chunks, labelled grids, line plots.
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
//! Invariants: knows nothing of tensors or models; a picture it writes is complete or absent, and what
//! a model has generated says so ([`save_generated`]).

mod axis;
mod canvas;
mod escaped;
mod generated;
mod grid;
mod ink;
mod label;
mod plot;
mod png_file;

pub use axis::Scale;
pub use escaped::Escaped;
pub use generated::mark_generated;
pub use grid::Grid;
pub use image::RgbImage;
pub use plot::Plot;
pub use png_file::{png_texts, save_generated, save_new_generated, save_png};
