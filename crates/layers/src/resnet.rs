//! Residual blocks.

use tch::Tensor;
use weights::Scope;

use crate::{Activation, Conv2d, GroupNorm, Linear};

/// What the residual blocks of one model have in common.
#[derive(Debug, Clone, Copy)]
pub struct ResnetConfig {
    /// The groups of the normalisations.
    pub groups: i64,
    /// The normalisations' epsilon.
    pub eps: f64,
    /// The non-linearity.
    pub activation: Activation,
    /// The width of the timestep embedding; `None` in a VAE, which has none.
    pub temb_channels: Option<i64>,
}

/// diffusers' `ResnetBlock2D`: norm, activation, convolution, twice, plus the input.
#[derive(Debug)]
pub struct ResnetBlock2d {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    activation: Activation,
}

impl ResnetBlock2d {
    /// From `in_channels` to `out_channels`, with a 1×1 shortcut where they differ.
    pub fn new(vs: &Scope, in_channels: i64, out_channels: i64, config: &ResnetConfig) -> Self {
        let norm = |name: &str, channels| GroupNorm::new(&(vs / name), config.groups, channels, config.eps);
        let time_emb_proj = config.temb_channels.map(|temb| Linear::new(&(vs / "time_emb_proj"), temb, out_channels));
        let shortcut = || Conv2d::new(&(vs / "conv_shortcut"), in_channels, out_channels, 1);
        Self {
            norm1: norm("norm1", in_channels),
            conv1: Conv2d::new(&(vs / "conv1"), in_channels, out_channels, 3),
            time_emb_proj,
            norm2: norm("norm2", out_channels),
            conv2: Conv2d::new(&(vs / "conv2"), out_channels, out_channels, 3),
            conv_shortcut: (in_channels != out_channels).then(shortcut),
            activation: config.activation,
        }
    }

    /// Maps [batch, in, height, width] to [batch, out, height, width], given `temb` [batch, `temb_channels`] where the
    /// model has timesteps.
    pub fn forward(&self, xs: &Tensor, temb: Option<&Tensor>) -> Tensor {
        // Assignments, not nested calls: without gradients each map is freed as soon as the next one is there.
        let mut hidden = self.norm1.forward_activated(xs, self.activation);
        hidden = self.conv1.forward(&hidden);
        if let (Some(projection), Some(temb)) = (&self.time_emb_proj, temb) {
            hidden += projection.forward(&self.activation.apply(temb)).unsqueeze(-1).unsqueeze(-1);
        }
        hidden = self.norm2.forward_activated(&hidden, self.activation);
        hidden = self.conv2.forward(&hidden);
        match &self.conv_shortcut {
            Some(shortcut) => hidden += shortcut.forward(xs),
            None => hidden += xs,
        }
        hidden
    }
}
