//! How timesteps enter the model.

use layers::Linear;
use tch::{Kind, Tensor};
use weights::Scope;

use crate::Config;

/// Sines and cosines of the timesteps, then two layers (diffusers' `Timesteps` and `TimestepEmbedding`).
#[derive(Debug)]
pub(crate) struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    dim: i64,
    flip_sin_to_cos: bool,
    freq_shift: i64,
}

impl TimeEmbedding {
    pub(crate) fn new(vs: &Scope, config: &Config) -> Self {
        let (dim, width) = (config.block_out_channels[0], Self::width(config));
        Self {
            linear_1: Linear::new(&(vs / "linear_1"), dim, width),
            linear_2: Linear::new(&(vs / "linear_2"), width, width),
            dim,
            flip_sin_to_cos: config.flip_sin_to_cos,
            freq_shift: config.freq_shift,
        }
    }

    /// The width of what [`TimeEmbedding::forward`] returns.
    pub(crate) fn width(config: &Config) -> i64 {
        4 * config.block_out_channels[0]
    }

    /// Maps timesteps [batch] to embeddings [batch, width] of the given dtype.
    pub(crate) fn forward(&self, timesteps: &Tensor, dtype: Kind) -> Tensor {
        let hidden = self.linear_1.forward(&self.sinusoids(timesteps).to_kind(dtype));
        self.linear_2.forward(&hidden.silu())
    }

    /// [batch, `dim`], always computed in f32: half precision cannot tell 1000 timesteps apart.
    fn sinusoids(&self, timesteps: &Tensor) -> Tensor {
        const SLOWEST: f64 = 1e-4;
        let half = self.dim / 2;
        let steps = Tensor::arange(half, (Kind::Float, timesteps.device()));
        let frequencies = (steps * SLOWEST.ln() / (half - self.freq_shift) as f64).exp();
        let angles = timesteps.to_kind(Kind::Float).outer(&frequencies);
        let (sin, cos) = (angles.sin(), angles.cos());
        let pair = if self.flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
        // An odd width ends with a zero.
        Tensor::cat(&pair, 1).constant_pad_nd([0, self.dim % 2])
    }
}
