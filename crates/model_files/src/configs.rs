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
    /// SDXL: CLIP ViT-L/14 and OpenCLIP ViT-bigG/14.
    Sdxl,
}

/// The JSON of each component's config.
#[derive(Debug, Clone)]
pub(crate) struct Configs {
    pub(crate) unet: Map<String, Value>,
    pub(crate) vae: Map<String, Value>,
    pub(crate) text_encoder: Map<String, Value>,
    /// SDXL's second one.
    pub(crate) text_encoder_2: Option<Map<String, Value>>,
    pub(crate) scheduler: Map<String, Value>,
}

/// The configs of a family's model that predicts `prediction` and was trained on images of `image_size` pixels.
pub(crate) fn published(family: Family, prediction: PredictionType, image_size: i64) -> Configs {
    if family == Family::Sdxl {
        return sdxl(prediction, image_size);
    }
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
    let [unet, vae, text_encoder, scheduler] = [unet, vae, text_encoder, scheduler].map(map);
    Configs { unet, vae, text_encoder, text_encoder_2: None, scheduler }
}

fn map(config: Value) -> Map<String, Value> {
    match config {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Those of SDXL 1.0.
fn sdxl(prediction: PredictionType, image_size: i64) -> Configs {
    // What it has in common with the others.
    let Configs { unet, vae, text_encoder, .. } = published(Family::V1, PredictionType::Epsilon, image_size);
    let with = |mut config: Map<String, Value>, changes: Value| {
        config.extend(map(changes));
        config
    };
    Configs {
        unet: with(
            unet,
            json!({
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "attention_head_dim": [5, 10, 20],
                "block_out_channels": [320, 640, 1280],
                "cross_attention_dim": 2048,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "projection_class_embeddings_input_dim": 2816,
                "transformer_layers_per_block": [1, 2, 10],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "use_linear_projection": true,
            }),
        ),
        vae: with(vae, json!({ "force_upcast": true, "sample_size": 1024, "scaling_factor": 0.13025 })),
        text_encoder_2: Some(with(
            text_encoder.clone(),
            json!({
                "architectures": ["CLIPTextModelWithProjection"],
                "hidden_act": "gelu",
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_attention_heads": 20,
                "num_hidden_layers": 32,
                "pad_token_id": 1,
                "projection_dim": 1280,
            }),
        )),
        text_encoder,
        scheduler: map(json!({
            "_class_name": "EulerDiscreteScheduler",
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "clip_sample": false,
            "interpolation_type": "linear",
            "num_train_timesteps": 1000,
            "prediction_type": prediction.to_string(),
            "sample_max_value": 1.0,
            "set_alpha_to_one": false,
            "skip_prk_steps": true,
            "steps_offset": 1,
            "timestep_spacing": "leading",
            "trained_betas": null,
            "use_karras_sigmas": false,
        })),
    }
}
