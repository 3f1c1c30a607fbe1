#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Each sample is by itself: its mask and its loss do not depend on what shares its batch. The reference's pass is a plain one of the
//! U-Net, which the blocks never change. Parameters are f32 leaves under the names of the U-Net's modules. Knows no tokenizer, trainer
//! or folder of a run.

mod blocks;
mod file;
mod mask;
mod reference;

pub use blocks::ImageAttention;
pub use file::{is_vico, read, write};
pub use mask::{attention_loss, normalized, otsu, subject};
pub use reference::{Mask, Positions, References};
