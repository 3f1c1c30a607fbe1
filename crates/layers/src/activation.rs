//! Activation functions by the names that config files use.

use serde::{Deserialize, Serialize};
use tch::Tensor;

/// An element-wise non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·σ(x), also called swish.
    #[serde(alias = "swish")]
    Silu,
    /// x·Φ(x), exact (by erf).
    Gelu,
    /// x·σ(1.702 x), OpenAI's approximation of gelu.
    QuickGelu,
}

impl Activation {
    /// Applies the function to each element.
    pub fn apply(self, xs: &Tensor) -> Tensor {
        match self {
            Self::Silu => xs.silu(),
            Self::Gelu => xs.gelu("none"),
            Self::QuickGelu => xs * (xs * 1.702).sigmoid(),
        }
    }
}
