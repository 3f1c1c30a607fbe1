//! The judge's architecture: CLIP's classes, with less text and more image than the miniature's, for it is to see.

use anyhow::Result;
use clip::ClipConfig;
use pretrainer::{Encoder, clip_config};
use serde_json::Value;

/// The width of the features.
pub(crate) const FEATURES: i64 = 128;

pub(crate) fn config(vocab_size: i64) -> Value {
    let texts = Encoder { width: 96, heads: 4, layers: 3 };
    let images = Encoder { width: 192, heads: 6, layers: 5 };
    clip_config(vocab_size, FEATURES, texts, images)
}

pub(crate) fn clip(vocab_size: i64) -> Result<ClipConfig> {
    Ok(serde_json::from_value(config(vocab_size))?)
}
