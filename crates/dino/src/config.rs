//! What `config.json` says of a vision transformer.

use anyhow::{Result, ensure};
use layers::Activation;
use serde::{Deserialize, Serialize};

/// Twice the widest published one, ViT-g.
const MAX_WIDTH: i64 = 1 << 14;
const WIDE: &str = "a wider layer fits no memory";
const MAX_LAYERS: i64 = 256;
/// ViT-S/8 has 785 at 224 pixels.
const MAX_POSITIONS: i64 = 1 << 16;

/// A vision transformer's config; absent keys have transformers' defaults, which are ViT-B/16's, unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, tag = "model_type", rename = "vit")]
pub struct Config {
    /// The width of all hidden states.
    pub hidden_size: i64,
    /// The width inside each layer's MLP.
    pub intermediate_size: i64,
    /// How many layers there are.
    pub num_hidden_layers: i64,
    /// How many attention heads each layer has; divides `hidden_size`.
    pub num_attention_heads: i64,
    /// Of the images: 3.
    pub num_channels: i64,
    /// The height and width of the images in pixels.
    pub image_size: i64,
    /// The height and width in pixels of the patches that become tokens.
    pub patch_size: i64,
    /// The non-linearity of the MLPs.
    pub hidden_act: Activation,
    /// The epsilon of all layer norms.
    pub layer_norm_eps: f64,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            qkv_bias: true,
        }
    }
}

impl Config {
    /// ViT-S/16, of which DINO-I is usually said.
    pub fn vits16() -> Self {
        Self { hidden_size: 384, intermediate_size: 1536, num_attention_heads: 6, ..Self::default() }
    }

    /// Checks that the numbers can describe a model.
    ///
    /// # Errors
    /// Names the key and the value that cannot be.
    pub fn validate(&self) -> Result<()> {
        for (key, width) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_channels", self.num_channels),
            ("patch_size", self.patch_size),
        ] {
            limits::within(key, width, 1..=MAX_WIDTH, WIDE)?;
        }
        limits::within("num_hidden_layers", self.num_hidden_layers, 1..=MAX_LAYERS, "they are computed one by one")?;
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        ensure!(
            heads > 0 && width % heads == 0,
            "num_attention_heads is {heads} in the config, but must divide the hidden_size {width}"
        );
        let (side, patch) = (self.image_size, self.patch_size);
        ensure!(side >= patch, "image_size is {side} in the config, but must be at least the patch_size {patch}");
        let patches = (side / patch).saturating_pow(2);
        limits::within(
            "(image_size / patch_size)²",
            patches,
            1..=MAX_POSITIONS,
            "attention grows with the square of it",
        )?;
        ensure!(self.layer_norm_eps > 0.0, "layer_norm_eps is {}, but must be positive", self.layer_norm_eps);
        Ok(())
    }
}
