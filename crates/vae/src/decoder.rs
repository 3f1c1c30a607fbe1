//! Latents to images.

use layers::{Activation, Conv2d, GroupNorm, ResnetBlock2d, Upsample2d};
use tch::Tensor;
use weights::Scope;

use crate::Config;
use crate::config::EPS;
use crate::mid_block::MidBlock;

/// diffusers' `Decoder`.
#[derive(Debug)]
pub(crate) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// diffusers' `UpDecoderBlock2D`.
#[derive(Debug)]
struct UpBlock {
    resnets: Vec<ResnetBlock2d>,
    upsampler: Option<Upsample2d>,
}

impl Decoder {
    /// `config` is valid, so there is at least one resolution.
    pub(crate) fn new(vs: &Scope, config: &Config) -> Self {
        let channels: Vec<i64> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let up_block = |i: usize| {
            let vs = vs / "up_blocks" / i;
            let (input, output) = (channels[i.saturating_sub(1)], channels[i]);
            let resnet = |layer: i64| {
                let input = if layer == 0 { input } else { output };
                ResnetBlock2d::new(&(&vs / "resnets" / layer), input, output, &config.resnets())
            };
            let upsampler = || Upsample2d::new(&(&vs / "upsamplers" / 0), output);
            UpBlock {
                resnets: (0..=config.layers_per_block).map(resnet).collect(),
                upsampler: (i + 1 < channels.len()).then(upsampler),
            }
        };
        Self {
            conv_in: Conv2d::new(&(vs / "conv_in"), config.latent_channels, first, 3),
            mid_block: MidBlock::new(&(vs / "mid_block"), first, config),
            up_blocks: (0..channels.len()).map(up_block).collect(),
            conv_norm_out: GroupNorm::new(&(vs / "conv_norm_out"), config.norm_num_groups, last, EPS),
            conv_out: Conv2d::new(&(vs / "conv_out"), last, config.out_channels, 3),
        }
    }

    /// Maps latents [batch, latent, h, w] to images [batch, out, factor · h, factor · w].
    pub(crate) fn forward(&self, latents: &Tensor) -> Tensor {
        let mut hidden = self.conv_in.forward(latents);
        hidden = self.mid_block.forward(&hidden);
        for block in &self.up_blocks {
            for resnet in &block.resnets {
                hidden = resnet.forward(&hidden, None);
            }
            if let Some(upsampler) = &block.upsampler {
                hidden = upsampler.forward(&hidden, None);
            }
        }
        // Always SiLU, whatever `act_fn` says.
        hidden = self.conv_norm_out.forward_activated(&hidden, Activation::Silu);
        self.conv_out.forward(&hidden)
    }
}
