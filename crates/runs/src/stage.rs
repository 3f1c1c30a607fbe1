//! The three stages.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Stage 1: the embedding of \[V\], everything else frozen.
    Embedding,
    /// Stage 2: the projections of the U-Net's cross-attention layers.
    CrossAttention,
    /// Stage 3: all of the U-Net.
    Unet,
}

impl Stage {
    /// In the order of the method.
    pub const ALL: [Self; 3] = [Self::Embedding, Self::CrossAttention, Self::Unet];

    /// 1, 2 or 3.
    pub fn number(self) -> u64 {
        self as u64 + 1
    }

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::CrossAttention => "cross_attention",
            Self::Unet => "unet",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
