//! Images to the moments of their latents.

use layers::{Activation, Conv2d, Downsample2d, GroupNorm, ResnetBlock2d};
use tch::Tensor;
use weights::Scope;

use crate::Config;
use crate::config::EPS;
use crate::mid_block::MidBlock;

/// diffusers' `Encoder`.
#[derive(Debug)]
pub(crate) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// diffusers' `DownEncoderBlock2D`.
#[derive(Debug)]
struct DownBlock {
    resnets: Vec<ResnetBlock2d>,
    downsampler: Option<Downsample2d>,
}

impl Encoder {
    /// `config` is valid, so there is at least one resolution.
    pub(crate) fn new(vs: &Scope, config: &Config) -> Self {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let down_block = |i: usize| {
            let vs = vs / "down_blocks" / i;
            let (input, output) = (channels[i.saturating_sub(1)], channels[i]);
            let resnet = |layer: i64| {
                let input = if layer == 0 { input } else { output };
                ResnetBlock2d::new(&(&vs / "resnets" / layer), input, output, &config.resnets())
            };
            // Padding 0 stands for one row and one column of zeros at the end only.
            let downsampler = || Downsample2d::new(&(&vs / "downsamplers" / 0), output, 0);
            DownBlock {
                resnets: (0..config.layers_per_block).map(resnet).collect(),
                downsampler: (i + 1 < channels.len()).then(downsampler),
            }
        };
        Self {
            conv_in: Conv2d::new(&(vs / "conv_in"), config.in_channels, first, 3),
            down_blocks: (0..channels.len()).map(down_block).collect(),
            mid_block: MidBlock::new(&(vs / "mid_block"), last, config),
            conv_norm_out: GroupNorm::new(&(vs / "conv_norm_out"), config.norm_num_groups, last, EPS),
            conv_out: Conv2d::new(&(vs / "conv_out"), last, 2 * config.latent_channels, 3),
        }
    }

    /// Maps images [batch, in, H, W] to moments [batch, 2 · latent, H / factor, W / factor].
    pub(crate) fn forward(&self, images: &Tensor) -> Tensor {
        let mut hidden = self.conv_in.forward(images);
        for block in &self.down_blocks {
            for resnet in &block.resnets {
                hidden = resnet.forward(&hidden, None);
            }
            if let Some(downsampler) = &block.downsampler {
                hidden = downsampler.forward(&hidden);
            }
        }
        hidden = self.mid_block.forward(&hidden);
        // Always SiLU, whatever `act_fn` says.
        hidden = self.conv_norm_out.forward_activated(&hidden, Activation::Silu);
        self.conv_out.forward(&hidden)
    }
}
