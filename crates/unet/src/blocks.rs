//! Residual blocks and transformers at one resolution.

use std::cell::RefCell;

use layers::{Activation, Downsample2d, ResnetBlock2d, ResnetConfig, Upsample2d};
use tch::Tensor;
use weights::Scope;

use crate::Config;
use crate::embeddings::TimeEmbedding;
use crate::layer::{Layer, Pass};
use crate::transformer::Transformer2d;

/// What the parts of one model are made from. Parts must be made in the order of execution, which numbers the
/// cross-attention layers.
pub(crate) struct Plan<'a> {
    pub(crate) config: &'a Config,
    cross_attention_layers: RefCell<Vec<String>>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        Self { config, cross_attention_layers: RefCell::default() }
    }

    /// Notes that there is a cross-attention layer of this name.
    pub(crate) fn count_cross_attention(&self, name: String) {
        self.cross_attention_layers.borrow_mut().push(name);
    }

    /// The names of all cross-attention layers that were made.
    pub(crate) fn cross_attention_layers(self) -> Vec<String> {
        self.cross_attention_layers.into_inner()
    }

    fn resnet(&self, vs: &Scope, in_channels: i64, out_channels: i64) -> ResnetBlock2d {
        let config = ResnetConfig {
            groups: self.config.norm_num_groups,
            eps: self.config.norm_eps,
            activation: Activation::Silu,
            temb_channels: Some(TimeEmbedding::width(self.config)),
        };
        ResnetBlock2d::new(vs, in_channels, out_channels, &config)
    }

    /// Layer number `i` of a block at `vs`, with the widths of down block number `block`.
    fn layer(&self, vs: &Scope, i: usize, block: usize, in_channels: i64, attends: bool) -> Layer {
        let resnet = self.resnet(&(vs / "resnets" / i), in_channels, self.config.block_out_channels[block]);
        Layer::new(resnet, attends.then(|| Transformer2d::new(&(vs / "attentions" / i), block, self)))
    }

    /// Layers with the given input channels.
    fn layers(
        &self,
        vs: &Scope,
        block: usize,
        in_channels: impl IntoIterator<Item = i64>,
        attends: bool,
    ) -> Vec<Layer> {
        let in_channels = in_channels.into_iter().enumerate();
        in_channels.map(|(i, channels)| self.layer(vs, i, block, channels, attends)).collect()
    }
}

/// `DownBlock2D` and `CrossAttnDownBlock2D`.
#[derive(Debug)]
pub(crate) struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Downsample2d>,
}

impl DownBlock {
    /// The last block does not reduce the size.
    pub(crate) fn new(vs: &Scope, block: usize, plan: &Plan<'_>) -> Self {
        let config = plan.config;
        let channels = &config.block_out_channels;
        let out_channels = channels[block];
        let first = channels[block.saturating_sub(1)];
        let in_channels = (0..config.layers_per_block.at(block)).map(|i| if i == 0 { first } else { out_channels });
        let downsample = || Downsample2d::new(&(vs / "downsamplers" / 0), out_channels, config.downsample_padding);
        Self {
            layers: plan.layers(vs, block, in_channels, config.down_block_attends(block)),
            downsampler: (block + 1 < channels.len()).then(downsample),
        }
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Returns the outputs of all layers, which the up blocks want; the last of them is the block's output.
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
    pub(crate) fn new(vs: &Scope, plan: &Plan<'_>) -> Self {
        let block = plan.config.block_out_channels.len() - 1;
        let channels = plan.config.block_out_channels[block];
        Self([(0, true), (1, false)].map(|(i, attends)| plan.layer(vs, i, block, channels, attends)))
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
    pub(crate) fn new(vs: &Scope, i: usize, plan: &Plan<'_>) -> Self {
        let config = plan.config;
        let channels = &config.block_out_channels;
        let block = channels.len() - 1 - i;
        let out_channels = channels[block];
        let below = channels[(block + 1).min(channels.len() - 1)];
        let above = channels[block.saturating_sub(1)];
        let last = config.layers_per_block.at(block);
        // The previous layer's channels and the skip connection's; the last skip comes from the block above.
        let in_channels = (0..=last)
            .map(|i| (if i == 0 { below } else { out_channels }) + (if i == last { above } else { out_channels }));
        Self {
            layers: plan.layers(vs, block, in_channels, config.up_block_attends(i)),
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
