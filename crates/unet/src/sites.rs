//! The layers that may have adapters.

use anyhow::Result;
use layers::AdapterSlot;
use tch::Tensor;

/// A linear layer of a transformer, or a 1×1 convolution, which is the same function of each pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearSite {
    /// Its name in diffusers, such as `mid_block.attentions.0.transformer_blocks.0.attn2.to_k`.
    pub name: String,
    /// The width of what it reads.
    pub in_features: i64,
    /// The width of what it gives.
    pub out_features: i64,
    /// Whether it is a convolution, whose weight has the shape `[out, in, 1, 1]`.
    pub convolution: bool,
}

impl LinearSite {
    pub(crate) fn new(name: &str, weight: &Tensor) -> Self {
        let size = weight.size();
        Self { name: name.to_owned(), in_features: size[1], out_features: size[0], convolution: size.len() == 4 }
    }
}

/// Sees a layer: its name, its weight, and the place for its adapter.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&str, &Tensor, &mut AdapterSlot) -> Result<()>;
