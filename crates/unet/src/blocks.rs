//! Residual blocks and transformers at one resolution.

use std::cell::RefCell;

use layers::{Activation, Downsample2d, ResnetBlock2d, ResnetConfig, Upsample2d};
use tch::Tensor;
use weights::Scope;

use crate::Config;
use crate::attention::{Attention, CrossAttention};
use crate::embeddings::TimeEmbedding;
use crate::observer::Text;
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

    /// Gives the next number to a cross-attention layer.
    pub(crate) fn cross_attention(&self, name: String, attention: Attention) -> CrossAttention {
        let mut names = self.cross_attention_layers.borrow_mut();
        names.push(name.clone());
        CrossAttention { attention, name, index: names.len() - 1 }
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

    /// Residual blocks with the given input channels, and transformers where the block attends to the text, all with
    /// the widths of down block number `block`.
    fn layers(
        &self,
        vs: &Scope,
        block: usize,
        in_channels: impl IntoIterator<Item = i64>,
        attends: bool,
    ) -> Vec<Layer> {
        let out_channels = self.config.block_out_channels[block];
        let layer = |(i, in_channels)| Layer {
            resnet: self.resnet(&(vs / "resnets" / i), in_channels, out_channels),
            attention: attends.then(|| Transformer2d::new(&(vs / "attentions" / i), block, self)),
        };
        in_channels.into_iter().enumerate().map(layer).collect()
    }
}

/// A residual block (`resnets.i`) and mostly a transformer (`attentions.i`).
#[derive(Debug)]
struct Layer {
    resnet: ResnetBlock2d,
    attention: Option<Transformer2d>,
}

impl Layer {
    fn forward(&self, xs: &Tensor, temb: &Tensor, text: &mut Text<'_>) -> Tensor {
        let hidden = self.resnet.forward(xs, Some(temb));
        match &self.attention {
            Some(attention) => attention.forward(&hidden, text),
            None => hidden,
        }
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

    /// Returns the outputs of all layers, which the up blocks want; the last of them is the block's output.
    pub(crate) fn forward(&self, xs: &Tensor, temb: &Tensor, text: &mut Text<'_>) -> Vec<Tensor> {
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.layers.len() + 1);
        for layer in &self.layers {
            outputs.push(layer.forward(outputs.last().unwrap_or(xs), temb, text));
        }
        if let Some(downsampler) = &self.downsampler {
            outputs.push(downsampler.forward(outputs.last().unwrap_or(xs)));
        }
        outputs
    }
}

/// `UNetMidBlock2DCrossAttn`.
#[derive(Debug)]
pub(crate) struct MidBlock {
    layers: Vec<Layer>,
    last: ResnetBlock2d,
}

impl MidBlock {
    pub(crate) fn new(vs: &Scope, plan: &Plan<'_>) -> Self {
        let block = plan.config.block_out_channels.len() - 1;
        let channels = plan.config.block_out_channels[block];
        Self {
            layers: plan.layers(vs, block, [channels], true),
            last: plan.resnet(&(vs / "resnets" / 1), channels, channels),
        }
    }

    pub(crate) fn forward(&self, xs: &Tensor, temb: &Tensor, text: &mut Text<'_>) -> Tensor {
        let hidden = self.layers.iter().fold(xs.shallow_clone(), |xs, layer| layer.forward(&xs, temb, text));
        self.last.forward(&hidden, Some(temb))
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

    /// Takes what it needs off the end of `skips`, and enlarges to the size of what remains there.
    pub(crate) fn forward(&self, xs: &Tensor, skips: &mut Vec<Tensor>, temb: &Tensor, text: &mut Text<'_>) -> Tensor {
        let mut hidden = xs.shallow_clone();
        for layer in &self.layers {
            let skip = skips.pop();
            let skip = skip.as_ref().expect("the down blocks have made one skip for each layer of the up blocks");
            hidden = layer.forward(&Tensor::cat(&[&hidden, skip], 1), temb, text);
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
