//! The configs of the published Stable Diffusion models, as their diffusers folders have them.

use serde_json::{Map, Value, json};

use crate::PredictionType;

/// Which text encoder, and so which geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Stable Diffusion 1.x: CLIP ViT-L/14.
    V1,
    /// Stable Diffusion 2.x: OpenCLIP ViT-H/14.
    V2,
}

/// The JSON of each component's config.
#[derive(Debug, Clone)]
pub(crate) struct Configs {
    pub(crate) unet: Map<String, Value>,
    pub(crate) vae: Map<String, Value>,
    pub(crate) text_encoder: Map<String, Value>,
    pub(crate) scheduler: Map<String, Value>,
}

/// The configs of a family's model that predicts `prediction` and was trained on images of `image_size` pixels.
pub(crate) fn published(family: Family, prediction: PredictionType, image_size: i64) -> Configs {
    let v2 = family == Family::V2;
    let velocity = prediction == PredictionType::VPrediction;
    let unet = json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": if v2 { json!([5, 10, 20, 20]) } else { json!(8) },
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": false,
        "cross_attention_dim": if v2 { 1024 } else { 768 },
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": image_size / 8,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        // 2.1 needs it in half precision; it changes nothing in f32.
        "upcast_attention": v2 && velocity,
        "use_linear_projection": v2,
    });
    let vae = json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": if v2 { 768 } else { 512 },
        "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    });
    let text_encoder = json!({
        "architectures": ["CLIPTextModel"],
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "hidden_act": if v2 { "gelu" } else { "quick_gelu" },
        "hidden_size": if v2 { 1024 } else { 768 },
        "intermediate_size": if v2 { 4096 } else { 3072 },
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": if v2 { 16 } else { 12 },
        // OpenCLIP has 24, of which Stable Diffusion leaves out the last one.
        "num_hidden_layers": if v2 { 23 } else { 12 },
        "pad_token_id": if v2 { 0 } else { 49407 },
        "projection_dim": if v2 { 512 } else { 768 },
        "vocab_size": 49408,
    });
    let scheduler = json!({
        "_class_name": if v2 && velocity { "DDIMScheduler" } else { "PNDMScheduler" },
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": prediction.to_string(),
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "trained_betas": null,
    });
    let [unet, vae, text_encoder, scheduler] = [unet, vae, text_encoder, scheduler].map(|config| match config {
        Value::Object(map) => map,
        _ => Map::new(),
    });
    Configs { unet, vae, text_encoder, scheduler }
}
