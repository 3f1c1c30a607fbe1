//! The miniature's architecture: Stable Diffusion 2.1's classes, with fewer and narrower layers.

use anyhow::Result;
use clip::ImageProcessor;
use serde_json::{Value, json};

/// The side of the images in pixels; latents have an eighth of it.
pub const IMAGE_SIZE: u32 = 128;
/// The tokens of a prompt, BOS, EOS and padding included.
pub(crate) const POSITIONS: i64 = 40;
/// The width of the text encoder, and of what the U-Net attends to.
const TEXT_WIDTH: i64 = 128;

/// What transformers loads the weights as, which are f16 in the files; diffusers loads its components as f32 in any case, and
/// a pipeline computes in one dtype.
const COMPUTED_IN: &str = "float32";

pub(crate) fn vae(scaling_factor: f64) -> Value {
    json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [16, 32, 64, 96],
        "down_block_types": vec!["DownEncoderBlock2D"; 4],
        "up_block_types": vec!["UpDecoderBlock2D"; 4],
        "force_upcast": false,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": IMAGE_SIZE,
        "scaling_factor": scaling_factor,
    })
}

/// An encoder of a CLIP.
#[derive(Debug, Clone, Copy)]
pub struct Encoder {
    /// The width of its hidden states.
    pub width: i64,
    /// Its attention's heads.
    pub heads: i64,
    /// Its layers.
    pub layers: i64,
}

const TEXT: Encoder = Encoder { width: TEXT_WIDTH, heads: 4, layers: 4 };
const IMAGE: Encoder = Encoder { width: 160, heads: 5, layers: 5 };

fn text(vocab_size: i64, features: i64, Encoder { width, heads, layers }: Encoder) -> Value {
    json!({
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_act": "gelu",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "projection_dim": features,
        "vocab_size": vocab_size,
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "pad_token_id": 0,
        "torch_dtype": COMPUTED_IN,
    })
}

pub(crate) fn text_encoder(vocab_size: i64) -> Value {
    text(vocab_size, TEXT_WIDTH, TEXT)
}

pub(crate) fn clip(vocab_size: i64) -> Value {
    clip_config(vocab_size, TEXT_WIDTH, TEXT, IMAGE)
}

/// The config.json of a CLIP for images of [`IMAGE_SIZE`] pixels, with so many features and these encoders of texts and images.
pub fn clip_config(vocab_size: i64, features: i64, texts: Encoder, images: Encoder) -> Value {
    json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "logit_scale_init_value": 2.6592,
        "projection_dim": features,
        "torch_dtype": COMPUTED_IN,
        "text_config": text(vocab_size, features, texts),
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_act": "gelu",
            "hidden_size": images.width,
            "image_size": IMAGE_SIZE,
            "intermediate_size": 4 * images.width,
            "layer_norm_eps": 1e-5,
            "num_attention_heads": images.heads,
            "num_channels": 3,
            "num_hidden_layers": images.layers,
            "patch_size": 16,
            "projection_dim": features,
        },
    })
}

pub(crate) fn unet() -> Value {
    let (down, up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
    json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": [3, 5, 6, 6],
        "block_out_channels": [48, 80, 96, 96],
        "center_input_sample": false,
        "cross_attention_dim": TEXT_WIDTH,
        "down_block_types": [down, down, down, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", up, up, up],
        "downsample_padding": 1,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 16,
        "sample_size": IMAGE_SIZE / 8,
        "use_linear_projection": true,
    })
}

/// Stable Diffusion 2.1-base's, and what its pipeline samples with.
pub(crate) fn scheduler() -> Value {
    json!({
        "_class_name": "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "trained_betas": null,
    })
}

/// How CLIP sees images.
pub(crate) fn image_processor() -> ImageProcessor {
    ImageProcessor::square(i64::from(IMAGE_SIZE))
}

/// The preprocessor_config.json of such a CLIP.
///
/// # Errors
/// When it cannot be written as JSON, which does not happen.
pub fn preprocessor() -> Result<Value> {
    let mut value = serde_json::to_value(image_processor())?;
    value["do_convert_rgb"] = json!(true);
    value["image_processor_type"] = json!("CLIPImageProcessor");
    Ok(value)
}

pub(crate) fn model_index() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}
