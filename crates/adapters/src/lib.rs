#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Knows no trainer. An adapter's parameters are f32 leaves whatever the U-Net's dtype, and change nothing until they
//! are trained.

mod extraction;
mod installed;
mod keys;
mod lora;
mod low_rank;
mod peft;
mod read;
mod rotation;
mod write;

pub use extraction::{Extracted, Extraction, extract};
pub use installed::Adapters;
pub use keys::Networks;
pub use lora::{LayerChange, Lora, LowRank, Sdxl};
pub use options::LoraKeys;
pub use peft::{read_oft, write_oft};
