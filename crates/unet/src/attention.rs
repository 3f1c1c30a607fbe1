//! Attention within a feature map, and from a feature map to the text.

use layers::{Linear, attention, attention_probabilities, merge_heads, split_heads};
use tch::Tensor;
use weights::Scope;

/// The text that cross-attention reads.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a> {
    /// [batch or 1, positions, `cross_attention_dim`], of the latents' kind.
    pub(crate) states: &'a Tensor,
    /// The positions of the tokens that somebody wants to see attended to.
    pub(crate) tokens: Option<&'a Tensor>,
}

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

    /// Maps [batch, pixels, channels] to the same shape, given `context` [batch or 1, positions, `context_dim`].
    ///
    /// `upcast` needs no care here: it is for half precision, in which `attention` keeps its scores in f32 but for few
    /// bf16 ones on a CPU, and those cannot overflow.
    pub(crate) fn forward(&self, xs: &Tensor, context: &Tensor) -> Tensor {
        let [q, k, v] = self.project(xs, context);
        self.to_out.forward(&merge_heads(&attention(&q, &k, &v, false)))
    }

    /// The same to the text, adding the probabilities [batch, tokens, heads, pixels] of its chosen tokens to `shown`.
    pub(crate) fn forward_to_text(&self, xs: &Tensor, text: Text<'_>, shown: &mut Vec<Tensor>) -> Tensor {
        let Some(tokens) = text.tokens else { return self.forward(xs, text.states) };
        let [q, k, v] = self.project(xs, text.states);
        let probabilities = attention_probabilities(&q, &k, self.upcast);
        shown.push(probabilities.index_select(3, tokens).permute([0, 3, 1, 2]));
        self.to_out.forward(&merge_heads(&probabilities.matmul(&v)))
    }

    /// Queries, keys and values, each [batch, heads, tokens, d].
    ///
    /// Keys and values of a text that all samples share are computed once. At batch 8 and latents of 16 x 16 they would
    /// be 8 % of the work of Stable Diffusion 2.1's U-Net.
    fn project(&self, xs: &Tensor, context: &Tensor) -> [Tensor; 3] {
        let (batch, texts) = (xs.size()[0], context.size()[0]);
        let [q, k, v] = [self.to_q.forward(xs), self.to_k.forward(context), self.to_v.forward(context)]
            .map(|xs| split_heads(&xs, self.heads));
        let for_all = |xs: Tensor| {
            let xs = xs.expand([batch, -1, -1, -1], false);
            // Whether each of a GPU's kernels takes the same memory for all samples is not known; the copy is small.
            if xs.device().is_cuda() { xs.contiguous() } else { xs }
        };
        if texts == batch { [q, k, v] } else { [q, for_all(k), for_all(v)] }
    }
}
