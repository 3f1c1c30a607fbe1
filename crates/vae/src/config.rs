//! What a VAE's `config.json` says.

use anyhow::{Result, ensure};
use layers::{Activation, ResnetConfig};
use serde::{Deserialize, Serialize};

/// The geometry of an [`crate::AutoencoderKl`], under diffusers' key names and with diffusers' defaults for absent keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The kind of autoencoder; only `AutoencoderKL` is supported.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Channels of the images that are encoded.
    pub in_channels: i64,
    /// Channels of the images that are decoded.
    pub out_channels: i64,
    /// One `DownEncoderBlock2D` for each of `block_out_channels`.
    pub down_block_types: Vec<String>,
    /// One `UpDecoderBlock2D` for each of `block_out_channels`.
    pub up_block_types: Vec<String>,
    /// Feature channels at each resolution, from that of the image down. Each but the last is followed by a halving.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks at each resolution of the encoder; the decoder has one more.
    pub layers_per_block: i64,
    /// The non-linearity in the residual blocks.
    pub act_fn: Activation,
    /// Channels of the latents.
    pub latent_channels: i64,
    /// Groups of every normalisation; divides all of `block_out_channels`.
    pub norm_num_groups: i64,
    /// The side of the images the VAE was trained on, in pixels, and of the tiles that diffusers' `enable_tiling` cuts.
    pub sample_size: i64,
    /// What latents are multiplied with, to have about unit variance for the U-Net.
    pub scaling_factor: f64,
    /// An offset of the latents that newer models have; not supported.
    pub shift_factor: Option<f64>,
    /// Offsets per channel that newer models have; not supported.
    pub latents_mean: Option<Vec<f64>>,
    /// Scales per channel that newer models have; not supported.
    pub latents_std: Option<Vec<f64>>,
    /// Whether a 1×1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether encoder and decoder attend at their lowest resolution.
    pub mid_block_add_attention: bool,
    /// Whether the model overflows in half precision, as SDXL's does. Not acted on here: who decodes chooses the dtype.
    pub force_upcast: bool,
}

/// Stable Diffusion's widest layers have 512 channels; a 3x3 convolution of so many would have 40 GB.
const MAX_CHANNELS: i64 = 1 << 15;
/// Stable Diffusion has 2.
const MAX_LAYERS: i64 = 64;
/// In pixels; the models are trained with 512 or 768.
const MAX_SIDE: i64 = 1 << 14;
const WIDE: &str = "a wider layer fits no memory";

const DOWN_BLOCK: &str = "DownEncoderBlock2D";
const UP_BLOCK: &str = "UpDecoderBlock2D";

impl Default for Config {
    fn default() -> Self {
        Self {
            class_name: "AutoencoderKL".to_owned(),
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DOWN_BLOCK.to_owned()],
            up_block_types: vec![UP_BLOCK.to_owned()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: Activation::Silu,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            force_upcast: true,
        }
    }
}

impl Config {
    /// Stable Diffusion 2.1 and 2.1-base: 83,653,863 parameters, images 8 times as large as latents.
    pub fn sd21() -> Self {
        Self {
            down_block_types: vec![DOWN_BLOCK.to_owned(); 4],
            up_block_types: vec![UP_BLOCK.to_owned(); 4],
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            sample_size: 768,
            ..Self::default()
        }
    }

    /// Stable Diffusion 1.5: the same geometry, trained on smaller images.
    pub fn sd15() -> Self {
        Self { sample_size: 512, ..Self::sd21() }
    }

    /// How many times larger an image is than its latents, in height and in width: 8 for Stable Diffusion.
    pub fn downscale_factor(&self) -> i64 {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Whether this crate can build the model.
    ///
    /// # Errors
    /// Names the first key whose value does not fit, and why.
    pub fn validate(&self) -> Result<()> {
        let class = terminal::shortened(&self.class_name);
        ensure!(class == "AutoencoderKL", "_class_name is {class:?}, but only \"AutoencoderKL\" is supported");
        for (key, types, supported) in [
            ("down_block_types", &self.down_block_types, DOWN_BLOCK),
            ("up_block_types", &self.up_block_types, UP_BLOCK),
        ] {
            if let Some(other) = types.iter().find(|&name| name != supported) {
                anyhow::bail!("{key} has {:?}, but only {supported:?} is supported", terminal::shortened(other));
            }
            let (blocks, channels) = (types.len(), self.block_out_channels.len());
            ensure!(blocks == channels, "{key} lists {blocks} blocks, but block_out_channels lists {channels}");
        }
        // Seven halvings turn 4096 pixels into 32.
        let levels = self.block_out_channels.len();
        ensure!((1..=8).contains(&levels), "block_out_channels lists {levels} resolutions, but 1 to 8 are supported");
        for (key, value, most, reason) in [
            ("in_channels", self.in_channels, MAX_CHANNELS, WIDE),
            ("out_channels", self.out_channels, MAX_CHANNELS, WIDE),
            ("layers_per_block", self.layers_per_block, MAX_LAYERS, "every layer is built"),
            ("latent_channels", self.latent_channels, MAX_CHANNELS, WIDE),
            ("norm_num_groups", self.norm_num_groups, MAX_CHANNELS, WIDE),
            ("sample_size", self.sample_size, MAX_SIDE, "tiles of this side are decoded whole"),
        ] {
            limits::within(key, value, 1..=most, reason)?;
        }
        for &channels in &self.block_out_channels {
            limits::within("block_out_channels", channels, 1..=MAX_CHANNELS, WIDE)?;
        }
        let groups = self.norm_num_groups;
        for &channels in &self.block_out_channels {
            ensure!(
                channels % groups == 0,
                "block_out_channels has {channels}, which is not a positive multiple of norm_num_groups {groups}"
            );
        }
        let factor = self.scaling_factor;
        ensure!(factor.is_finite() && factor != 0.0, "scaling_factor is {factor}, but latents are divided by it");
        for (key, is_set) in [
            ("shift_factor", self.shift_factor.is_some()),
            ("latents_mean", self.latents_mean.is_some()),
            ("latents_std", self.latents_std.is_some()),
        ] {
            ensure!(!is_set, "{key} is set, but is not supported: Stable Diffusion 1 and 2 have none");
        }
        Ok(())
    }

    /// What all residual blocks have in common.
    pub(crate) fn resnets(&self) -> ResnetConfig {
        ResnetConfig { groups: self.norm_num_groups, eps: EPS, activation: self.act_fn, temb_channels: None }
    }
}

/// The epsilon of every normalisation; diffusers takes it from no config.
pub(crate) const EPS: f64 = 1e-6;
