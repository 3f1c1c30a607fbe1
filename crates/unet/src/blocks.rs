//! Residual blocks and transformers at one resolution.

use layers::{Activation, Downsample2d, ResnetBlock2d, ResnetConfig, Upsample2d};
use tch::Tensor;
use weights::Scope;

use crate::Config;
use crate::embeddings::TimeEmbedding;
use crate::layer::{Layer, Pass};
use crate::transformer::Transformer2d;

fn resnet(vs: &Scope, in_channels: i64, out_channels: i64, config: &Config) -> ResnetBlock2d {
    let config = ResnetConfig {
        groups: config.norm_num_groups,
        eps: config.norm_eps,
        activation: Activation::Silu,
        temb_channels: Some(TimeEmbedding::width(config)),
    };
    ResnetBlock2d::new(vs, in_channels, out_channels, &config)
}

/// Layer number `i` of a block at `vs`, with the widths of down block number `block`.
fn layer(vs: &Scope, i: usize, block: usize, in_channels: i64, attends: bool, config: &Config) -> Layer {
    let resnet = resnet(&(vs / "resnets" / i), in_channels, config.block_out_channels[block], config);
    Layer::new(resnet, attends.then(|| Transformer2d::new(&(vs / "attentions" / i), block, config)))
}

/// `DownBlock2D` and `CrossAttnDownBlock2D`.
#[derive(Debug)]
pub(crate) struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Downsample2d>,
}

impl DownBlock {
    /// The last block does not reduce the size.
    pub(crate) fn new(vs: &Scope, block: usize, config: &Config) -> Self {
        let channels = &config.block_out_channels;
        let out_channels = channels[block];
        let first = channels[block.saturating_sub(1)];
        let in_channels = (0..config.layers_per_block.at(block)).map(|i| if i == 0 { first } else { out_channels });
        let attends = config.down_block_attends(block);
        let layers = in_channels.enumerate().map(|(i, channels)| layer(vs, i, block, channels, attends, config));
        let downsample = || Downsample2d::new(&(vs / "downsamplers" / 0), out_channels, config.downsample_padding);
        Self { layers: layers.collect(), downsampler: (block + 1 < channels.len()).then(downsample) }
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Returns the outputs of all layers, which the up blocks take; the last of them is the block's output.
    pub(crate) fn forward(&self, xs: &Tensor, pass: &mut Pass<'_>) -> Vec<Tensor> {
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.layers.len() + 1);
        for layer in &self.layers {
            outputs.push(layer.forward(&[outputs.last().unwrap_or(xs)], pass));
        }
        if let Some(downsampler) = &self.downsampler {
            outputs.push(downsampler.forward(outputs.last().unwrap_or(xs)));
        }
        outputs
    }
}

/// `UNetMidBlock2DCrossAttn`: two layers, of which the first attends to the text.
#[derive(Debug)]
pub(crate) struct MidBlock([Layer; 2]);

impl MidBlock {
    pub(crate) fn new(vs: &Scope, config: &Config) -> Self {
        let block = config.block_out_channels.len() - 1;
        let channels = config.block_out_channels[block];
        Self([(0, true), (1, false)].map(|(i, attends)| layer(vs, i, block, channels, attends, config)))
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.0
    }

    pub(crate) fn forward(&self, xs: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        self.0.iter().fold(xs.shallow_clone(), |xs, layer| layer.forward(&[&xs], pass))
    }
}

/// `UpBlock2D` and `CrossAttnUpBlock2D`.
#[derive(Debug)]
pub(crate) struct UpBlock {
    layers: Vec<Layer>,
    upsampler: Option<Upsample2d>,
}

impl UpBlock {
    /// Number `i` of the up blocks, which mirror the down blocks; the last does not enlarge.
    pub(crate) fn new(vs: &Scope, i: usize, config: &Config) -> Self {
        let channels = &config.block_out_channels;
        let block = channels.len() - 1 - i;
        let out_channels = channels[block];
        let below = channels[(block + 1).min(channels.len() - 1)];
        let above = channels[block.saturating_sub(1)];
        let last = config.layers_per_block.at(block);
        // The previous layer's channels and the skip connection's; the last skip comes from the block above.
        let in_channels = (0..=last)
            .map(|i| (if i == 0 { below } else { out_channels }) + (if i == last { above } else { out_channels }));
        let attends = config.up_block_attends(i);
        let layers = in_channels.enumerate().map(|(i, channels)| layer(vs, i, block, channels, attends, config));
        Self {
            layers: layers.collect(),
            upsampler: (block > 0).then(|| Upsample2d::new(&(vs / "upsamplers" / 0), out_channels)),
        }
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Takes what it needs off the end of `skips`, and enlarges to the size of what remains there.
    pub(crate) fn forward(&self, xs: &Tensor, skips: &mut Vec<Tensor>, pass: &mut Pass<'_>) -> Tensor {
        let mut hidden = xs.shallow_clone();
        for layer in &self.layers {
            let skip = skips.pop();
            let skip = skip.as_ref().expect("the down blocks have made one skip for each layer of the up blocks");
            hidden = layer.forward(&[&hidden, skip], pass);
        }
        match &self.upsampler {
            Some(upsampler) => {
                let size = skips.last().map(|skip| (skip.size()[2], skip.size()[3]));
                upsampler.forward(&hidden, size)
            }
            None => hidden,
        }
    }
}
