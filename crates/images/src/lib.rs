#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Knows nothing of tensors or models; a file it writes is complete or absent, and what a model has generated says so
//! ([`save_generated`]); text has an embedded font, and only characters that it lacks come from the system's fonts.

mod axis;
mod grid;
mod plot;
mod png_file;
mod resample;
mod rotate;
mod scatter;
mod svg;

pub use axis::Scale;
pub use grid::Grid;
pub use image::RgbImage;
pub use plot::Plot;
pub use png_file::{mark_generated, png_texts, save_generated, save_new_generated, save_png};
pub use resample::{Filter, resize, resize_part, with_short_side};
pub use rotate::Rotation;
pub use scatter::{Point, Scatter};
pub use svg::Escaped;
