//! Transformers over the pixels of a feature map.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use layers::{Conv2d, GroupNorm, LayerNorm, Linear};
use tch::Tensor;
use weights::Scope;

use crate::Config;
use crate::attention::{Attention, KeysValues};
use crate::insertion::{Insertion, TransformerPlace};
use crate::sites::Visit;

/// diffusers' `Transformer2DModel`: transformer blocks over the pixels, plus the input.
#[derive(Debug)]
pub(crate) struct Transformer2d {
    name: String,
    channels: i64,
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}

/// How a transformer is entered and left: the same function of each pixel, with weights of another shape.
#[derive(Debug)]
enum Projection {
    /// `use_linear_projection`.
    Linear(Linear),
    /// A 1×1 convolution.
    Conv(Conv2d),
}

impl Projection {
    fn visit(&mut self, name: &str, visit: Visit<'_>) -> Result<()> {
        let layer = match self {
            Self::Linear(linear) => Some(linear.adapter()),
            Self::Conv(conv) => conv.adapter(),
        };
        layer.map_or(Ok(()), |(weight, slot)| visit(name, weight, slot))
    }
}

impl Transformer2d {
    /// With the widths of down block number `block`.
    pub(crate) fn new(vs: &Scope, block: usize, config: &Config) -> Self {
        const EPS: f64 = 1e-6;
        let channels = config.block_out_channels[block];
        let projection = |name: &str| {
            let vs = vs / name;
            if config.use_linear_projection {
                Projection::Linear(Linear::new(&vs, channels, channels))
            } else {
                Projection::Conv(Conv2d::new(&vs, channels, channels, 1))
            }
        };
        let depth = config.transformer_layers_per_block.at(block);
        let (context_dim, heads) = (config.cross_attention_dim, config.heads().at(block));
        let transformer_block =
            |vs: &Scope| TransformerBlock::with_upcast(vs, channels, context_dim, heads, config.upcast_attention);
        Self {
            name: vs.prefix().to_owned(),
            norm: GroupNorm::new(&(vs / "norm"), config.norm_num_groups, channels, EPS),
            proj_in: projection("proj_in"),
            transformer_blocks: (0..depth).map(|i| transformer_block(&(vs / "transformer_blocks" / i))).collect(),
            channels,
            proj_out: projection("proj_out"),
        }
    }

    /// The cross-attention layer of each transformer block.
    pub(crate) fn cross_attention(&self) -> impl Iterator<Item = &Attention> {
        self.transformer_blocks.iter().map(|block| &block.attn2)
    }

    /// Shows each linear layer to `visit`, in the order of execution.
    pub(crate) fn visit(&mut self, visit: Visit<'_>) -> Result<()> {
        let Self { name, proj_in, transformer_blocks, proj_out, .. } = self;
        proj_in.visit(&format!("{name}.proj_in"), visit)?;
        for (i, block) in transformer_blocks.iter_mut().enumerate() {
            block.visit(&format!("{name}.transformer_blocks.{i}"), visit)?;
        }
        proj_out.visit(&format!("{name}.proj_out"), visit)
    }

    /// What is known of it from outside.
    pub(crate) fn place(&self) -> TransformerPlace {
        let attention = self.transformer_blocks.first().map(|block| &block.attn1);
        TransformerPlace {
            name: self.name.clone(),
            channels: self.channels,
            heads: attention.map_or(1, Attention::heads),
        }
    }

    /// Maps [batch, channels, height, width] to the same shape, given the text's keys and values in each of
    /// [`Transformer2d::cross_attention`].
    pub(crate) fn forward(&self, xs: &Tensor, text: &[KeysValues], extras: &Extras<'_>) -> Transformed {
        let (height, width) = (xs.size()[2], xs.size()[3]);
        // Contiguous, or all later layers would inherit strange strides and run by slower kernels.
        let to_pixels = |xs: &Tensor| xs.flatten(2, 3).transpose(1, 2).contiguous();
        let to_map = |xs: &Tensor| xs.transpose(1, 2).contiguous().unflatten(2, [height, width]);
        let normed = self.norm.forward(xs);
        let mut hidden = match &self.proj_in {
            Projection::Linear(linear) => linear.forward(&to_pixels(&normed)),
            Projection::Conv(conv) => to_pixels(&conv.forward(&normed)),
        };
        let mut shown = Vec::new();
        for ((i, block), text) in self.transformer_blocks.iter().enumerate().zip(text) {
            let tokens = extras.tokens.filter(|_| extras.watched[i]);
            hidden = block.forward(&hidden, text, tokens, &mut shown);
        }
        let features = extras.keeps_features.then(|| hidden.shallow_clone());
        if let Some((part, inputs)) = extras.insertion {
            hidden = part.lock().unwrap_or_else(PoisonError::into_inner).forward(&hidden, inputs);
        }
        let hidden = match &self.proj_out {
            Projection::Linear(linear) => to_map(&linear.forward(&hidden)),
            Projection::Conv(conv) => conv.forward(&to_map(&hidden)),
        };
        Transformed { hidden: hidden + xs, shown, features }
    }
}

/// What a transformer does in a pass beside transforming.
pub(crate) struct Extras<'a> {
    /// The positions that are shown, `[tokens]`.
    pub(crate) tokens: Option<&'a Tensor>,
    /// Of which of its cross-attention layers.
    pub(crate) watched: &'a [bool],
    pub(crate) keeps_features: bool,
    /// What is put behind the transformer blocks, and what the pass brings for it.
    pub(crate) insertion: Option<(&'a Mutex<dyn Insertion>, &'a [Tensor])>,
}

/// What becomes of a feature map.
pub(crate) struct Transformed {
    pub(crate) hidden: Tensor,
    /// The probabilities [batch, tokens, heads, pixels] of each cross-attention layer that is watched.
    pub(crate) shown: Vec<Tensor>,
    /// What the transformer blocks have made, [batch, pixels, channels].
    pub(crate) features: Option<Tensor>,
}

/// diffusers' `BasicTransformerBlock`: pixels attend to each other, then to a context, mostly the text, then each passes through
/// two layers of its own.
#[derive(Debug)]
pub struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    /// Of the width `channels` and so many heads, for a context of the width `context_dim`.
    pub fn new(vs: &Scope, channels: i64, context_dim: i64, heads: i64) -> Self {
        Self::with_upcast(vs, channels, context_dim, heads, false)
    }

    /// The same; `upcast` is the configuration's `upcast_attention`.
    fn with_upcast(vs: &Scope, channels: i64, context_dim: i64, heads: i64, upcast: bool) -> Self {
        const EPS: f64 = 1e-5;
        let norm = |name: &str| LayerNorm::new(&(vs / name), channels, EPS);
        let attention = |name: &str, dim| Attention::new(&(vs / name), channels, dim, heads, upcast);
        Self {
            norm1: norm("norm1"),
            attn1: attention("attn1", channels),
            norm2: norm("norm2"),
            attn2: attention("attn2", context_dim),
            norm3: norm("norm3"),
            ff: FeedForward::new(&(vs / "ff"), channels),
        }
    }

    fn visit(&mut self, name: &str, visit: Visit<'_>) -> Result<()> {
        self.attn1.visit(visit)?;
        self.attn2.visit(visit)?;
        self.ff.visit(&format!("{name}.ff.net"), visit)
    }

    /// Maps [batch, height · width, channels] to the same shape.
    fn forward(&self, xs: &Tensor, text: &KeysValues, tokens: Option<&Tensor>, shown: &mut Vec<Tensor>) -> Tensor {
        self.around(xs, |normed| match tokens {
            Some(tokens) => self.attn2.forward_shown(normed, text, tokens, shown),
            None => self.attn2.forward(normed, text),
        })
    }

    /// Maps [batch, tokens, channels] to the same shape, attending to those positions of a `context` [batch, positions,
    /// `context_dim`] that `kept` [batch, positions], of bools, has: at least one of each sample.
    pub fn forward_to(&self, xs: &Tensor, context: &Tensor, kept: &Tensor) -> Tensor {
        self.around(xs, |normed| self.attn2.forward_to(normed, &self.attn2.keys_values(context), kept))
    }

    /// The block around its cross-attention.
    fn around(&self, xs: &Tensor, cross_attention: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        let normed = self.norm1.forward(xs);
        let xs = xs + self.attn1.forward(&normed, &self.attn1.keys_values(&normed));
        let xs = &xs + cross_attention(&self.norm2.forward(&xs));
        &xs + self.ff.forward(&self.norm3.forward(&xs))
    }
}

/// Two layers with a gate, GEGLU (arXiv 2002.05202): (a · gelu(b)) W with a, b from the first layer.
#[derive(Debug)]
struct FeedForward {
    gated: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(vs: &Scope, channels: i64) -> Self {
        let hidden = 4 * channels;
        Self {
            gated: Linear::new(&(vs / "net" / 0 / "proj"), channels, 2 * hidden),
            out: Linear::new(&(vs / "net" / 2), hidden, channels),
        }
    }

    fn visit(&mut self, name: &str, visit: Visit<'_>) -> Result<()> {
        for (layer, place) in [(&mut self.gated, "0.proj"), (&mut self.out, "2")] {
            let (weight, slot) = layer.adapter();
            visit(&format!("{name}.{place}"), weight, slot)?;
        }
        Ok(())
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        self.out.forward(&libtorch::geglu(&self.gated.forward(xs)))
    }
}
