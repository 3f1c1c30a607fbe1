//! Attention within a feature map, and from a feature map to the text.

use std::collections::BTreeMap;

use anyhow::Result;
use layers::{Linear, attention, attention_probabilities, attention_to, merge_heads, split_heads};
use tch::{Kind, Tensor};
use weights::Scope;

use crate::sites::Visit;

/// A context's keys and values, each [batch or 1, heads, positions, d].
pub(crate) type KeysValues = [Tensor; 2];

/// The keys and values of a text in all cross-attention layers of a U-Net: see [`crate::UNet::project`].
#[derive(Debug)]
pub struct KvCache {
    /// By the layers' names.
    pub(crate) layers: BTreeMap<String, KeysValues>,
    /// [batch or 1, positions, `cross_attention_dim`], the text's.
    pub(crate) size: Vec<i64>,
    pub(crate) dtype: Kind,
    /// What SDXL adds to the timesteps' embedding for it, [batch or 1, width].
    pub(crate) added: Option<Tensor>,
}

impl KvCache {
    /// The same numbers, of which no gradient reaches the keys and values of the first position, the begin of text:
    /// neither the projections nor the text learn from it. Custom Diffusion trains so (diffusers'
    /// `CustomDiffusionAttnProcessor`).
    ///
    /// The next pass's graph leads through the result, and the memory of its keys and values is its own.
    #[must_use]
    pub fn with_first_detached(&self) -> Self {
        const POSITIONS: i64 = 2;
        let detached = |xs: &Tensor| {
            let rest = xs.size()[POSITIONS as usize] - 1;
            Tensor::cat(&[xs.narrow(POSITIONS, 0, 1).detach(), xs.narrow(POSITIONS, 1, rest)], POSITIONS)
        };
        self.map(self.size.clone(), detached)
    }

    /// Those of `count` texts from number `start` on, in the same memory.
    ///
    /// # Panics
    /// When there are not so many texts.
    #[must_use]
    pub fn narrow(&self, start: i64, count: i64) -> Self {
        let part = |xs: &Tensor| xs.narrow(0, start, count);
        Self { added: self.added.as_ref().map(part), ..self.map([&[count], &self.size[1..]].concat(), part) }
    }

    /// Of all texts of these, one after the other, those of the numbers `order`, `[texts]`, in this order. The same U-Net has
    /// projected all of them in the same dtype.
    ///
    /// # Panics
    /// When they are of different U-Nets, dtypes or lengths, or there are not so many texts.
    #[must_use]
    pub fn gathered(parts: &[&Self], order: &Tensor) -> Self {
        let first = parts[0];
        let layers = first.layers.keys().map(|name| {
            let gather = |which: usize| {
                let all: Vec<&Tensor> = parts.iter().map(|part| &part.layers[name][which]).collect();
                Tensor::cat(&all, 0).index_select(0, order)
            };
            (name.clone(), [gather(0), gather(1)])
        });
        let added: Option<Vec<&Tensor>> = parts.iter().map(|part| part.added.as_ref()).collect();
        Self {
            layers: layers.collect(),
            size: [&order.size(), &first.size[1..]].concat(),
            dtype: first.dtype,
            added: added.map(|all| Tensor::cat(&all, 0).index_select(0, order)),
        }
    }

    fn map(&self, size: Vec<i64>, of_each: impl Fn(&Tensor) -> Tensor) -> Self {
        let layers = self.layers.iter().map(|(name, pair)| (name.clone(), pair.each_ref().map(&of_each)));
        let added = self.added.as_ref().map(Tensor::shallow_clone);
        Self { layers: layers.collect(), size, dtype: self.dtype, added }
    }
}

/// Multi-head attention; diffusers' `Attention`.
#[derive(Debug)]
pub(crate) struct Attention {
    name: String,
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
            name: vs.prefix().to_owned(),
            to_q: Linear::without_bias(&(vs / "to_q"), channels, channels),
            to_k: Linear::without_bias(&(vs / "to_k"), context_dim, channels),
            to_v: Linear::without_bias(&(vs / "to_v"), context_dim, channels),
            to_out: Linear::new(&(vs / "to_out" / 0), channels, channels),
            heads,
            upcast,
        }
    }

    /// Where it is in the model, such as `mid_block.attentions.0.transformer_blocks.0.attn2`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The number of heads.
    pub(crate) fn heads(&self) -> i64 {
        self.heads
    }

    /// Shows each layer to `visit`, in the order queries, keys, values, output.
    pub(crate) fn visit(&mut self, visit: Visit<'_>) -> Result<()> {
        let layers = [("to_q", &mut self.to_q), ("to_k", &mut self.to_k), ("to_v", &mut self.to_v)];
        for (name, layer) in layers.into_iter().chain([("to_out.0", &mut self.to_out)]) {
            let (weight, slot) = layer.adapter();
            visit(&format!("{}.{name}", self.name), weight, slot)?;
        }
        Ok(())
    }

    /// The keys and values of `context` [batch or 1, positions, `context_dim`].
    pub(crate) fn keys_values(&self, context: &Tensor) -> KeysValues {
        self.keys_and_values([context, context])
    }

    /// The keys of one context and the values of another of the same shape.
    pub(crate) fn keys_and_values(&self, [keys_from, values_from]: [&Tensor; 2]) -> KeysValues {
        [(&self.to_k, keys_from), (&self.to_v, values_from)]
            .map(|(projection, context)| split_heads(&projection.forward(context), self.heads))
    }

    /// Maps [batch, pixels, channels] to the same shape, given the context's [`Attention::keys_values`].
    ///
    /// `upcast` needs no care here: it is for half precision, in which `attention` keeps its scores in f32 but for few
    /// bf16 ones on a CPU, and those cannot overflow.
    pub(crate) fn forward(&self, xs: &Tensor, context: &KeysValues) -> Tensor {
        let [q, k, v] = self.queries_keys_values(xs, context);
        self.to_out.forward(&merge_heads(&attention(&q, &k, &v, false)))
    }

    /// The same, attending only to the positions that `kept` [batch, positions], of bools, has.
    pub(crate) fn forward_to(&self, xs: &Tensor, context: &KeysValues, kept: &Tensor) -> Tensor {
        let [q, k, v] = self.queries_keys_values(xs, context);
        self.to_out.forward(&merge_heads(&attention_to(&q, &k, &v, kept)))
    }

    /// The same as [`Attention::forward`], adding the probabilities [batch, tokens, heads, pixels] of the context's `tokens` to `shown`.
    pub(crate) fn forward_shown(
        &self,
        xs: &Tensor,
        context: &KeysValues,
        tokens: &Tensor,
        shown: &mut Vec<Tensor>,
    ) -> Tensor {
        let [q, k, v] = self.queries_keys_values(xs, context);
        let probabilities = attention_probabilities(&q, &k, self.upcast);
        shown.push(probabilities.index_select(3, tokens).permute([0, 3, 1, 2]));
        self.to_out.forward(&merge_heads(&probabilities.matmul(&v)))
    }

    /// Queries, keys and values, each [batch, heads, tokens, d].
    ///
    /// Keys and values of a text that all samples share are computed once.
    fn queries_keys_values(&self, xs: &Tensor, context: &KeysValues) -> [Tensor; 3] {
        let batch = xs.size()[0];
        let for_all = |xs: &Tensor| {
            if xs.size()[0] == batch {
                return xs.shallow_clone();
            }
            let xs = xs.expand([batch, -1, -1, -1], false);
            // Whether each of a GPU's kernels takes the same memory for all samples is not known; the copy is small.
            if xs.device().is_cuda() { xs.contiguous() } else { xs }
        };
        let [k, v] = context.each_ref().map(for_all);
        [split_heads(&self.to_q.forward(xs), self.heads), k, v]
    }
}
