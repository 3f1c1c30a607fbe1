//! The three stages.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is being learned.
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

    /// Whether this stage trains the U-Net's parameter `name`. Stage 2 trains what the authors' code does: every
    /// parameter of a module called `attn2`, and neither its norm nor anything around it.
    pub fn trains(self, name: &str) -> bool {
        match self {
            Self::Embedding => false,
            Self::CrossAttention => name.split('.').any(|part| part == "attn2"),
            Self::Unet => true,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
