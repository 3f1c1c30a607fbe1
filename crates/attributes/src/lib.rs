#![doc = include_str!("../README.md")]
//!
//! CLIP-T says how well image and prompt fit, and nobody can tell from .25 whether the snow is there. A [`Reader`] says what is there,
//! and [`Demands`] what was asked for, so that "14 of 16 images show what their prompts ask for" can be counted. It reads a small
//! world, of which [`Attributes`] has all words.
//!
//! ```
//! use attributes::{Attributes, Demands, Reading};
//!
//! let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
//! let attributes = Attributes {
//!     backgrounds: words(&["plain", "red", "snow"]),
//!     colors: words(&["own", "red"]),
//!     styles: words(&["none"]),
//!     things: words(&["apple", "bird"]),
//!     places: [("snow".to_owned(), "in the snow".to_owned())].into(),
//!     ..Attributes::default()
//! };
//! let demands = Demands::of(&attributes, "a red {} and an apple in the snow");
//! let mut reading = Reading {
//!     background: "snow".to_owned(),
//!     color: "red".to_owned(),
//!     style: "none".to_owned(),
//!     things: words(&["bird", "apple"]),
//! };
//! assert!(demands.met_by(&reading));
//! reading.things.pop();
//! assert!(!demands.met_by(&reading));
//! ```
//!
//! Invariants: the features' length does not matter; a demand that the reader has no word for is none.

mod attributes;
mod demands;
mod reader;

pub use attributes::{Attributes, Label};
pub use demands::Demands;
pub use reader::{AGREEMENT, ATTRIBUTES, PREFIX, Reader, Reading, WEIGHTS};
