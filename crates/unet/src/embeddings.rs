//! How timesteps enter the model.

use anyhow::{Result, ensure};
use layers::Linear;
use tch::{Kind, Tensor};
use weights::Scope;

use crate::Config;
use crate::config::TIME_IDS;

/// Sines and cosines of the timesteps, then two layers (diffusers' `Timesteps` and `TimestepEmbedding`).
#[derive(Debug)]
pub(crate) struct TimeEmbedding {
    sinusoids: Sinusoids,
    layers: TwoLayers,
}

impl TimeEmbedding {
    pub(crate) fn new(vs: &Scope, config: &Config) -> Self {
        let (dim, width) = (config.block_out_channels[0], Self::width(config));
        Self { sinusoids: Sinusoids::new(dim, config), layers: TwoLayers::new(vs, dim, width) }
    }

    /// The width of what [`TimeEmbedding::forward`] returns.
    pub(crate) fn width(config: &Config) -> i64 {
        4 * config.block_out_channels[0]
    }

    /// Maps timesteps [batch] to embeddings [batch, width] of the given dtype.
    pub(crate) fn forward(&self, timesteps: &Tensor, dtype: Kind) -> Tensor {
        self.layers.forward(&self.sinusoids.of(timesteps).to_kind(dtype))
    }
}

/// What SDXL's U-Net reads beside the text: diffusers' `added_cond_kwargs`.
#[derive(Debug)]
pub struct AddedConditions {
    /// The pooled text, [batch or 1, [`Config::pooled_text_dim`]].
    pub text_embeds: Tensor,
    /// In pixels, [batch or 1, 6]: the original height and width, the crop's top and left, the target's height and width.
    pub time_ids: Tensor,
}

/// What is added to the timesteps' embedding (diffusers' `text_time`): the pooled text and sines and cosines of the sizes, then two
/// layers.
#[derive(Debug)]
pub(crate) struct AddedEmbedding {
    sinusoids: Sinusoids,
    layers: TwoLayers,
    text: i64,
}

impl AddedEmbedding {
    /// `None` for a model that has none.
    pub(crate) fn new(vs: &Scope, config: &Config) -> Option<Self> {
        let (text, dim) = (config.pooled_text_dim()?, config.addition_time_embed_dim?);
        let width = TimeEmbedding::width(config);
        Some(Self {
            sinusoids: Sinusoids::new(dim, config),
            layers: TwoLayers::new(vs, text + TIME_IDS * dim, width),
            text,
        })
    }

    /// [batch or 1, width] of the given dtype.
    pub(crate) fn forward(&self, added: &AddedConditions, dtype: Kind) -> Result<Tensor> {
        let AddedConditions { text_embeds, time_ids } = added;
        let (text, sizes) = (text_embeds.size(), time_ids.size());
        ensure!(
            text.len() == 2 && text[1] == self.text && sizes[..] == [text[0], TIME_IDS],
            "pooled text embeddings have shape {text:?} and sizes {sizes:?}, but this U-Net expects [batch, {}] and [batch, \
             {TIME_IDS}]: use the text encoders that belong to it",
            self.text
        );
        let time_ids = libtorch::upload(time_ids, text_embeds.device());
        let sizes = self.sinusoids.of(&time_ids.flatten(0, -1)).view([text[0], -1]);
        let both = Tensor::cat(&[text_embeds.to_kind(dtype), sizes.to_kind(dtype)], 1);
        Ok(self.layers.forward(&both))
    }
}

/// diffusers' `TimestepEmbedding`: two layers with SiLU between them.
#[derive(Debug)]
struct TwoLayers {
    linear_1: Linear,
    linear_2: Linear,
}

impl TwoLayers {
    fn new(vs: &Scope, dim: i64, width: i64) -> Self {
        Self {
            linear_1: Linear::new(&(vs / "linear_1"), dim, width),
            linear_2: Linear::new(&(vs / "linear_2"), width, width),
        }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        self.linear_2.forward(&self.linear_1.forward(xs).silu())
    }
}

/// Sines and cosines of numbers.
#[derive(Debug)]
struct Sinusoids {
    dim: i64,
    flip_sin_to_cos: bool,
    freq_shift: i64,
}

impl Sinusoids {
    fn new(dim: i64, config: &Config) -> Self {
        Self { dim, flip_sin_to_cos: config.flip_sin_to_cos, freq_shift: config.freq_shift }
    }

    /// Of [count] numbers, [count, `dim`], always computed in f32: half precision cannot tell 1000 timesteps apart.
    fn of(&self, numbers: &Tensor) -> Tensor {
        const SLOWEST: f64 = 1e-4;
        let half = self.dim / 2;
        let steps = Tensor::arange(half, (Kind::Float, numbers.device()));
        let frequencies = (steps * SLOWEST.ln() / (half - self.freq_shift) as f64).exp();
        let angles = numbers.to_kind(Kind::Float).outer(&frequencies);
        let (sin, cos) = (angles.sin(), angles.cos());
        let pair = if self.flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
        // An odd width ends with a zero.
        Tensor::cat(&pair, 1).constant_pad_nd([0, self.dim % 2])
    }
}
