//! Watching cross-attention.

use anyhow::{Result, bail};
use tch::{Device, Tensor};

/// Sees the attention probabilities of each cross-attention layer while [`crate::UNet::forward`] runs.
pub trait AttentionObserver {
    /// The positions of the tokens to be shown, asked for once at the start of each forward pass. Only their columns
    /// are cut out of the attention probabilities, in this order; a position may be named twice.
    fn tokens(&self) -> &[i64];

    /// Whether a layer of this name is to be shown; the others compute as fast as if nobody watched.
    fn watches(&self, _layer: &str) -> bool {
        true
    }

    /// Shows one layer's `probabilities` [batch, tokens, heads, height · width], in the order of execution.
    ///
    /// Each pixel's probabilities are a softmax over *all* positions of the text. They have the latents' dtype
    /// and on the autograd graph, where they may stay: what is not kept here is freed as if nobody had watched.
    fn observe(&mut self, layer: &CrossAttentionLayer<'_>, probabilities: &Tensor);
}

/// A cross-attention layer during a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossAttentionLayer<'a> {
    /// Where it is in the model, such as `down_blocks.0.attentions.0.transformer_blocks.0.attn2`.
    pub name: &'a str,
    /// Its place in the order of execution, from 0; 15 is the last in Stable Diffusion.
    pub index: usize,
    /// The number of attention heads.
    pub heads: i64,
    /// The height of its feature map in this pass.
    pub height: i64,
    /// The width of its feature map in this pass.
    pub width: i64,
}

/// An observer that keeps everything it is shown.
#[derive(Debug)]
pub struct AttentionMaps {
    tokens: Vec<i64>,
    /// What was seen so far, in order; to start afresh, take it.
    pub maps: Vec<AttentionMap>,
}

/// One layer's attention probabilities.
#[derive(Debug)]
pub struct AttentionMap {
    /// As [`CrossAttentionLayer::name`].
    pub name: String,
    /// As [`CrossAttentionLayer::index`].
    pub index: usize,
    /// As [`CrossAttentionLayer::heads`].
    pub heads: i64,
    /// As [`CrossAttentionLayer::height`].
    pub height: i64,
    /// As [`CrossAttentionLayer::width`].
    pub width: i64,
    /// [batch, tokens, heads, height · width], on the autograd graph of the pass.
    pub probabilities: Tensor,
}

impl AttentionMaps {
    /// Watches the tokens at the given positions: `[5, 6]`, or `0..77` for all.
    pub fn new(tokens: impl IntoIterator<Item = i64>) -> Self {
        Self { tokens: tokens.into_iter().collect(), maps: Vec::new() }
    }
}

impl AttentionObserver for AttentionMaps {
    fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    fn observe(&mut self, layer: &CrossAttentionLayer<'_>, probabilities: &Tensor) {
        let &CrossAttentionLayer { name, index, heads, height, width } = layer;
        let (name, probabilities) = (name.to_owned(), probabilities.shallow_clone());
        self.maps.push(AttentionMap { name, index, heads, height, width, probabilities });
    }
}

/// An observer at work.
pub(crate) struct Watch<'a> {
    observer: &'a mut dyn AttentionObserver,
    /// [`AttentionObserver::tokens`] as a tensor on the model's device.
    pub(crate) tokens: Tensor,
    /// Layers that this pass has come through.
    passed: usize,
}

impl<'a> Watch<'a> {
    /// Asks which tokens to show, of a text with so many `positions`.
    pub(crate) fn new(observer: &'a mut dyn AttentionObserver, positions: i64, device: Device) -> Result<Self> {
        let tokens = observer.tokens();
        if let Some(token) = tokens.iter().find(|token| !(0..positions).contains(*token)) {
            bail!(
                "attention to token position {token} is asked for, but the text has positions 0 to {}",
                positions - 1
            );
        }
        let tokens = libtorch::upload(&Tensor::from_slice(tokens), device);
        Ok(Self { observer, tokens, passed: 0 })
    }

    /// As [`AttentionObserver::watches`].
    pub(crate) fn watches(&self, layer: &str) -> bool {
        self.observer.watches(layer)
    }

    /// Comes through the layer `name`, for a feature map of this size, and shows its `probabilities` [batch, tokens, heads, pixels]
    /// if it is watched.
    pub(crate) fn pass(&mut self, name: &str, (height, width): (i64, i64), probabilities: Option<&Tensor>) {
        let index = self.passed;
        self.passed += 1;
        if let Some(probabilities) = probabilities {
            let layer = CrossAttentionLayer { name, index, heads: probabilities.size()[2], height, width };
            self.observer.observe(&layer, probabilities);
        }
    }
}
