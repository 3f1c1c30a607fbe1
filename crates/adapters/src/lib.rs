#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Knows no trainer. An adapter's parameters are f32 leaves whatever the U-Net's dtype, and change nothing until they are
//! trained.

mod installed;
mod low_rank;
mod rotation;

pub use installed::Adapters;
