//! Attention within a feature map, and from a feature map to the text.

use layers::{Linear, attention, attention_probabilities, merge_heads, split_heads};
use tch::Tensor;
use weights::Scope;

use crate::observer::{CrossAttentionLayer, Text};

/// Multi-head attention; diffusers' `Attention`.
#[derive(Debug)]
pub(crate) struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
    upcast: bool,
}

impl Attention {
    /// From `channels` to a context of `context_dim`.
    pub(crate) fn new(vs: &Scope, channels: i64, context_dim: i64, heads: i64, upcast: bool) -> Self {
        Self {
            to_q: Linear::without_bias(&(vs / "to_q"), channels, channels),
            to_k: Linear::without_bias(&(vs / "to_k"), context_dim, channels),
            to_v: Linear::without_bias(&(vs / "to_v"), context_dim, channels),
            to_out: Linear::new(&(vs / "to_out" / 0), channels, channels),
            heads,
            upcast,
        }
    }

    /// Maps [batch, pixels, channels] to the same shape, given `context` [batch, positions, `context_dim`].
    ///
    /// `upcast` needs no care here: the fused kernels keep their scores in f32.
    pub(crate) fn forward(&self, xs: &Tensor, context: &Tensor) -> Tensor {
        let [q, k, v] = self.project(xs, context);
        self.to_out.forward(&merge_heads(&attention(&q, &k, &v, false)))
    }

    /// The same, with the probabilities [batch, heads, pixels, positions].
    pub(crate) fn forward_with_probabilities(&self, xs: &Tensor, context: &Tensor) -> (Tensor, Tensor) {
        let [q, k, v] = self.project(xs, context);
        let probabilities = attention_probabilities(&q, &k, self.upcast);
        let hidden = self.to_out.forward(&merge_heads(&probabilities.matmul(&v)));
        (hidden, probabilities)
    }

    fn project(&self, xs: &Tensor, context: &Tensor) -> [Tensor; 3] {
        [self.to_q.forward(xs), self.to_k.forward(context), self.to_v.forward(context)]
            .map(|xs| split_heads(&xs, self.heads))
    }
}

/// Attention to the text (`attn2`), which may be watched.
#[derive(Debug)]
pub(crate) struct CrossAttention {
    pub(crate) attention: Attention,
    pub(crate) name: String,
    pub(crate) index: usize,
}

impl CrossAttention {
    /// Maps [batch, height · width, channels] to the same shape.
    pub(crate) fn forward(&self, xs: &Tensor, (height, width): (i64, i64), text: &mut Text<'_>) -> Tensor {
        let Some(watch) = &mut text.watch else { return self.attention.forward(xs, &text.states) };
        let (hidden, probabilities) = self.attention.forward_with_probabilities(xs, &text.states);
        let layer =
            CrossAttentionLayer { name: &self.name, index: self.index, heads: self.attention.heads, height, width };
        watch.show(&layer, &probabilities);
        hidden
    }
}
