#![doc = include_str!("../README.md")]
//!
//! # Invariants
//!
//! Knows no text encoder, scheduler, loss or heat map. Each layer is a function of its explicit inputs, so that it can be run
//! again ([`UNet::set_gradient_checkpointing`]). [`UNet::forward`] checks the shapes of its inputs; LibTorch's own exceptions
//! (memory, mixed devices) are left to the caller's `libtorch::catch`.

mod attention;
mod blocks;
mod config;
mod embeddings;
mod insertion;
mod layer;
mod model;
mod observer;
mod sites;
mod transformer;

pub use attention::KvCache;
pub use config::{Config, PerBlock};
pub use embeddings::AddedConditions;
pub use insertion::{Features, Hooks, Inserted, Insertion, Insertions, TransformerPlace};
pub use model::UNet;
pub use observer::{AttentionMap, AttentionMaps, AttentionObserver, CrossAttentionLayer};
pub use sites::LinearSite;
pub use transformer::TransformerBlock;
