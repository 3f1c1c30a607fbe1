//! Models of real size with random weights, and images.

use std::fs;
use std::path::Path;

use anyhow::Result;
use clip::{ClipConfig, ClipModel, ClipTextModel, ClipTextModelWithProjection, TextConfig};
use images::RgbImage;
use serde::Serialize;
use serde_json::json;
use tch::{Device, Kind};
use tokenizer::Tokenizer;
use unet::UNet;
use vae::AutoencoderKl;
use weights::{Parameters, Random};

const TO: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Writes a model of Stable Diffusion 2.1-base's geometry, 5 GB, to the new folder `out`, but for the vocabulary: that
/// of `tokenizer`, a small tokenizer's folder.
///
/// # Errors
/// When `out` exists or cannot be written.
pub fn sd21_base(tokenizer: &Path, out: &Path) -> Result<()> {
    let tokenizer = Tokenizer::load(tokenizer)?;
    let vae = vae::Config::sd21();
    let text = TextConfig { vocab_size: tokenizer.embedding_rows(), ..TextConfig::sd21() };
    let unet = unet::Config::sd21_base();
    atomic::new_folder(out, |folder| {
        let source = Random { seed: 0 };
        let (_, parameters) = weights::build(&source, TO, |vs| UNet::new(vs, &unet))?;
        component(&folder.join("unet"), &unet, &parameters, DIFFUSERS)?;
        let (_, parameters) = weights::build(&source, TO, |vs| AutoencoderKl::new(vs, &vae))?;
        component(&folder.join("vae"), &vae, &parameters, DIFFUSERS)?;
        let (_, parameters) = weights::build(&source, TO, |vs| ClipTextModel::new(vs, &text))?;
        component(&folder.join("text_encoder"), &text, &parameters, TRANSFORMERS)?;
        tokenizer.save(folder.join("tokenizer"))?;
        let scheduler = json!({
            "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000, "prediction_type": "epsilon", "set_alpha_to_one": false, "skip_prk_steps": true,
            "steps_offset": 1, "clip_sample": false,
        });
        write(&folder.join("scheduler/scheduler_config.json"), &scheduler)?;
        let classes = json!({
            "_class_name": "StableDiffusionPipeline",
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "safety_checker": [null, null], "feature_extractor": [null, null], "requires_safety_checker": false,
        });
        write(&folder.join("model_index.json"), &classes)
    })
}

/// Writes a model of SDXL's geometry, 14 GB, to the new folder `out`, as [`sd21_base`].
///
/// # Errors
/// When `out` exists or cannot be written.
pub fn sdxl_base(tokenizer: &Path, out: &Path) -> Result<()> {
    let tokenizer = Tokenizer::load(tokenizer)?;
    let vae = vae::Config { scaling_factor: 0.13025, sample_size: 1024, ..vae::Config::sd21() };
    let vocab_size = tokenizer.embedding_rows();
    // A small tokenizer's end of text.
    let eos_token_id = tokenizer.eos_id();
    let first = TextConfig { vocab_size, eos_token_id, ..TextConfig::sd15() };
    let second = TextConfig { vocab_size, eos_token_id, ..TextConfig::sdxl_second() };
    let unet = unet::Config::sdxl_base();
    atomic::new_folder(out, |folder| {
        let source = Random { seed: 0 };
        let (_, parameters) = weights::build(&source, TO, |vs| UNet::new(vs, &unet))?;
        component(&folder.join("unet"), &unet, &parameters, DIFFUSERS)?;
        drop(parameters);
        let (_, parameters) = weights::build(&source, TO, |vs| AutoencoderKl::new(vs, &vae))?;
        component(&folder.join("vae"), &vae, &parameters, DIFFUSERS)?;
        let (_, parameters) = weights::build(&source, TO, |vs| ClipTextModel::new(vs, &first))?;
        component(&folder.join("text_encoder"), &first, &parameters, TRANSFORMERS)?;
        let (_, parameters) = weights::build(&source, TO, |vs| ClipTextModelWithProjection::new(vs, &second))?;
        component(&folder.join("text_encoder_2"), &second, &parameters, TRANSFORMERS)?;
        tokenizer.save(folder.join("tokenizer"))?;
        tokenizer.save(folder.join("tokenizer_2"))?;
        let scheduler = json!({
            "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000, "prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "leading",
        });
        write(&folder.join("scheduler/scheduler_config.json"), &scheduler)?;
        let classes = json!({
            "_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true,
            "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        });
        write(&folder.join("model_index.json"), &classes)
    })
}

/// Writes a CLIP of ViT-B/32's geometry to the new folder `out`, but for the vocabulary, as [`sd21_base`].
///
/// # Errors
/// When `out` exists or cannot be written.
pub fn vit_b32(tokenizer: &Path, out: &Path) -> Result<()> {
    let tokenizer = Tokenizer::load(tokenizer)?;
    let text_config = TextConfig { vocab_size: tokenizer.embedding_rows(), ..ClipConfig::vit_b32().text_config };
    let config = ClipConfig { text_config, ..ClipConfig::vit_b32() };
    atomic::new_folder(out, |folder| {
        let (_, parameters) = weights::build(&Random { seed: 0 }, TO, |vs| ClipModel::new(vs, &config))?;
        component(folder, &config, &parameters, TRANSFORMERS)?;
        write(&folder.join("preprocessor_config.json"), &clip::ImageProcessor::default())?;
        Ok(tokenizer.save(folder)?)
    })
}

/// Writes `count` images of 512 pixels to the new folder `out`, about as compressible as what a model draws: waves with
/// a little noise.
///
/// # Errors
/// When `out` exists or cannot be written.
pub fn waves(count: u32, out: &Path) -> Result<()> {
    atomic::new_folder(out, |folder| {
        (0..count).try_for_each(|i| {
            let channel = |x: u32, y: u32, c: f64| {
                let wave = (f64::from(x) / 40.0 + c).sin() + (f64::from(y) / 60.0 + f64::from(i)).cos();
                (128.0 + 50.0 * wave + f64::from(x.wrapping_mul(7919).wrapping_add(y.wrapping_mul(104_729)) % 13)) as u8
            };
            let pixel = |x, y| [channel(x, y, 0.0), channel(x, y, 1.0), channel(x, y, 2.0)].into();
            let image = RgbImage::from_fn(512, 512, pixel);
            images::save_png(&folder.join(format!("{i:05}.png")), &image, &[])
        })
    })
}

/// What diffusers and transformers call a component's weights.
const DIFFUSERS: &str = "diffusion_pytorch_model.safetensors";
const TRANSFORMERS: &str = "model.safetensors";

/// A component's config.json and its weights.
fn component(folder: &Path, config: &impl Serialize, parameters: &Parameters, file: &str) -> Result<()> {
    write(&folder.join("config.json"), config)?;
    parameters.save(&folder.join(file))
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    atomic::write(path, serde_json::to_vec_pretty(value)?)
}
