//! What `config.json` says of a CLIP.

use anyhow::{Context, Result, ensure};
use layers::Activation;
use serde::{Deserialize, Serialize};

/// The widest published CLIP, bigG, has 8192 in its MLPs; two such layers of so many would have 8 GB.
const MAX_WIDTH: i64 = 1 << 15;
const WIDE: &str = "a wider layer fits no memory";
/// The deepest published CLIP has 48.
const MAX_LAYERS: i64 = 256;
/// CLIP's vocabulary has 49408.
const MAX_TOKENS: i64 = 1 << 22;
/// Texts have 77, images up to 730.
const MAX_POSITIONS: i64 = 1 << 16;
const ATTENTION: &str = "attention grows with the square of it";

/// The text encoder's config; absent keys have transformers' defaults, unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, tag = "model_type", rename = "clip_text_model")]
pub struct TextConfig {
    /// How many tokens there are; ids count from 0.
    pub vocab_size: i64,
    /// The width of all hidden states.
    pub hidden_size: i64,
    /// The width inside each layer's MLP.
    pub intermediate_size: i64,
    /// The width of the space that texts and images share.
    pub projection_dim: i64,
    /// How many layers there are.
    pub num_hidden_layers: i64,
    /// How many attention heads each layer has; divides `hidden_size`.
    pub num_attention_heads: i64,
    /// How many tokens a text may have.
    pub max_position_embeddings: i64,
    /// The non-linearity of the MLPs.
    pub hidden_act: Activation,
    /// The epsilon of all layer norms.
    pub layer_norm_eps: f64,
    /// The token whose hidden state stands for the text. 2 is what old configs wrongly say; then it is the largest id.
    pub eos_token_id: i64,
}

/// The image encoder's config; absent keys have transformers' defaults, unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, tag = "model_type", rename = "clip_vision_model")]
pub struct VisionConfig {
    /// The width of all hidden states.
    pub hidden_size: i64,
    /// The width inside each layer's MLP.
    pub intermediate_size: i64,
    /// The width of the space that texts and images share.
    pub projection_dim: i64,
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
}

/// The config of a whole CLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename = "clip")]
pub struct ClipConfig {
    /// The text encoder's; its own `projection_dim` is overruled by the one below.
    pub text_config: TextConfig,
    /// The image encoder's; its own `projection_dim` is overruled by the one below.
    pub vision_config: VisionConfig,
    /// The width of the space that texts and images share.
    #[serde(default = "default_projection_dim")]
    pub projection_dim: i64,
}

fn default_projection_dim() -> i64 {
    512
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: default_projection_dim(),
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: default_projection_dim(),
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl TextConfig {
    /// Stable Diffusion 2.1's and 2.1-base's: OpenCLIP H without its last layer.
    pub fn sd21() -> Self {
        Self { num_hidden_layers: 23, projection_dim: 512, ..ClipConfig::open_clip_h14().text_config }
    }

    /// Stable Diffusion 1.5's: CLIP ViT-L/14's.
    pub fn sd15() -> Self {
        ClipConfig::vit_l14().text_config
    }

    /// SDXL's second one: OpenCLIP bigG's. The first is Stable Diffusion 1.5's.
    pub fn sdxl_second() -> Self {
        Self {
            hidden_size: 1280,
            intermediate_size: 5120,
            projection_dim: 1280,
            num_hidden_layers: 32,
            num_attention_heads: 20,
            hidden_act: Activation::Gelu,
            ..Self::default()
        }
    }

    /// Checks that the numbers can describe a model.
    ///
    /// # Errors
    /// Names the key and the value that cannot be.
    pub fn validate(&self) -> Result<()> {
        limits::within("vocab_size", self.vocab_size, 1..=MAX_TOKENS, "every token has an embedding in memory")?;
        limits::within("max_position_embeddings", self.max_position_embeddings, 1..=MAX_POSITIONS, ATTENTION)?;
        limits::within("projection_dim", self.projection_dim, 1..=MAX_WIDTH, WIDE)?;
        self.geometry().validate()
    }

    pub(crate) fn geometry(&self) -> Geometry {
        Geometry {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        }
    }
}

impl VisionConfig {
    /// Checks that the numbers can describe a model.
    ///
    /// # Errors
    /// Names the key and the value that cannot be.
    pub fn validate(&self) -> Result<()> {
        limits::within("num_channels", self.num_channels, 1..=MAX_WIDTH, WIDE)?;
        limits::within("patch_size", self.patch_size, 1..=MAX_WIDTH, WIDE)?;
        limits::within("projection_dim", self.projection_dim, 1..=MAX_WIDTH, WIDE)?;
        ensure!(
            self.image_size >= self.patch_size,
            "image_size is {} in the config, but must be at least the patch_size {}",
            self.image_size,
            self.patch_size
        );
        let patches = (self.image_size / self.patch_size).saturating_pow(2);
        limits::within("(image_size / patch_size)²", patches, 1..=MAX_POSITIONS, ATTENTION)?;
        self.geometry().validate()
    }

    pub(crate) fn geometry(&self) -> Geometry {
        Geometry {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        }
    }
}

impl ClipConfig {
    /// OpenAI's ViT-B/32.
    pub fn vit_b32() -> Self {
        Self {
            text_config: TextConfig::default(),
            vision_config: VisionConfig::default(),
            projection_dim: default_projection_dim(),
        }
    }

    /// OpenAI's ViT-B/16.
    pub fn vit_b16() -> Self {
        let vision_config = VisionConfig { patch_size: 16, ..VisionConfig::default() };
        Self { vision_config, ..Self::vit_b32() }
    }

    /// OpenAI's ViT-L/14.
    pub fn vit_l14() -> Self {
        Self {
            text_config: TextConfig {
                hidden_size: 768,
                intermediate_size: 3072,
                projection_dim: 768,
                num_attention_heads: 12,
                ..TextConfig::default()
            },
            vision_config: VisionConfig {
                hidden_size: 1024,
                intermediate_size: 4096,
                projection_dim: 768,
                num_hidden_layers: 24,
                num_attention_heads: 16,
                patch_size: 14,
                ..VisionConfig::default()
            },
            projection_dim: 768,
        }
    }

    /// OpenCLIP's ViT-H/14.
    pub fn open_clip_h14() -> Self {
        Self {
            text_config: TextConfig {
                hidden_size: 1024,
                intermediate_size: 4096,
                projection_dim: 1024,
                num_hidden_layers: 24,
                num_attention_heads: 16,
                hidden_act: Activation::Gelu,
                ..TextConfig::default()
            },
            vision_config: VisionConfig {
                hidden_size: 1280,
                intermediate_size: 5120,
                projection_dim: 1024,
                num_hidden_layers: 32,
                num_attention_heads: 16,
                patch_size: 14,
                hidden_act: Activation::Gelu,
                ..VisionConfig::default()
            },
            projection_dim: 1024,
        }
    }

    /// Checks that the numbers can describe a model.
    ///
    /// # Errors
    /// Names the key and the value that cannot be.
    pub fn validate(&self) -> Result<()> {
        limits::within("projection_dim", self.projection_dim, 1..=MAX_WIDTH, WIDE)?;
        self.text_config.validate().context("in the text_config")?;
        self.vision_config.validate().context("in the vision_config")
    }
}

/// The size of a tower.
pub(crate) struct Geometry {
    pub(crate) hidden_size: i64,
    pub(crate) intermediate_size: i64,
    pub(crate) num_hidden_layers: i64,
    pub(crate) num_attention_heads: i64,
    pub(crate) hidden_act: Activation,
    pub(crate) layer_norm_eps: f64,
}

impl Geometry {
    pub(crate) fn validate(&self) -> Result<()> {
        for (key, value, most, reason) in [
            ("hidden_size", self.hidden_size, MAX_WIDTH, WIDE),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH, WIDE),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS, "every layer is built"),
            ("num_attention_heads", self.num_attention_heads, MAX_WIDTH, WIDE),
        ] {
            limits::within(key, value, 1..=most, reason)?;
        }
        let eps = self.layer_norm_eps;
        limits::within("layer_norm_eps", eps, 0.0..=1.0, "it only keeps a division from zero")?;
        ensure!(
            self.hidden_size % self.num_attention_heads == 0,
            "hidden_size {} in the config is not a multiple of num_attention_heads {}",
            self.hidden_size,
            self.num_attention_heads
        );
        Ok(())
    }

    /// How wide new weights are that read hidden states: 1/√hidden_size.
    pub(crate) fn std(&self) -> f64 {
        (self.hidden_size as f64).powf(-0.5)
    }

    /// How much narrower those start that each layer has, so that the sum over the layers keeps its size.
    pub(crate) fn depth_factor(&self) -> f64 {
        (2.0 * self.num_hidden_layers as f64).powf(-0.5)
    }
}
