//! The trained parts as one model folder.

use std::path::Path;

use anyhow::{Context, Result};
use clip::ClipTextModel;
use libtorch::random;
use scenes::Split;
use serde_json::{Value, json};
use tch::{Device, Kind};
use vae::AutoencoderKl;
use weights::{Archive, Tensors};

use crate::pretraining::{best_weights, finished_weights};
use crate::sources::to_tensor;
use crate::{Part, Sources, shapes};

/// What the text encoder's parameters are called within CLIP.
const TEXT_MODEL: &str = "text_model.";
/// Holds the latents' scale beside the VAE's weights.
pub(crate) const SCALING_FACTOR: &str = "vae/scaling_factor.json";
/// The same within the VAE's folder.
pub(crate) const SCALING_FACTOR_FILE: &str = "scaling_factor.json";
/// Scenes that the scale is measured on.
const MEASURED: u64 = 256;

/// Writes `out` in the diffusers layout, with CLIP in `clip/`, fp16.
///
/// # Errors
/// When a part has not been trained, or a file cannot be written.
pub fn assemble(run: &Path, sources: &Sources, out: &Path) -> Result<()> {
    let vocab_size = sources.tokenizer.vocab_size();
    let to = (Kind::Float, Device::Cpu);
    let write = |folder: &str, file: &str, value: &Value| -> Result<()> {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        atomic::write(&folder.join(file), format!("{}\n", serde_json::to_string_pretty(value)?))
    };
    let save = |file: &str, tensors: &Tensors| {
        weights::save(&out.join(file), tensors.iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Half))))
    };
    write("", "model_index.json", &shapes::model_index())?;
    write("scheduler", "scheduler_config.json", &shapes::scheduler())?;
    write("unet", "config.json", &shapes::unet())?;
    write("vae", "config.json", &shapes::vae(scaling_factor(run, sources, to)?))?;
    write("text_encoder", "config.json", &shapes::text_encoder(vocab_size))?;
    write("clip", "config.json", &shapes::clip(vocab_size))?;
    write("clip", "preprocessor_config.json", &shapes::preprocessor()?)?;
    for folder in ["tokenizer", "clip"] {
        sources.tokenizer.save(out.join(folder))?;
    }
    save("text_encoder/model.safetensors", &text_tensors(&tensors(run, Part::Clip)?))?;
    Part::ALL.into_iter().try_for_each(|part| save(part.file(), &tensors(run, part)?))
}

/// A part's best weights.
fn tensors(run: &Path, part: Part) -> Result<Tensors> {
    Archive::open(&best_weights(run, part)?)?.tensors()
}

/// The text encoder's among CLIP's.
fn text_tensors(clip: &Tensors) -> Tensors {
    let text = clip.iter().filter(|(name, _)| name.starts_with(TEXT_MODEL));
    text.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// The VAE with the scale that its latents turned out to have.
pub(crate) fn trained_vae(run: &Path, sources: &Sources, to: (Kind, Device)) -> Result<AutoencoderKl> {
    vae_of_scale(run, scaling_factor(run, sources, to)?, to)
}

fn vae_of_scale(run: &Path, scale: f64, to: (Kind, Device)) -> Result<AutoencoderKl> {
    let config = serde_json::from_value(shapes::vae(scale))?;
    Ok(weights::build(&tensors(run, Part::Vae)?, to, |vs| AutoencoderKl::new(vs, &config))?.0)
}

/// What gives latents unit variance; measured once the VAE is finished and then kept, since the U-Net learns under it.
fn scaling_factor(run: &Path, sources: &Sources, to: (Kind, Device)) -> Result<f64> {
    let path = run.join(SCALING_FACTOR);
    if path.exists() {
        return json::read(&path, "the scale of a VAE's latents");
    }
    let vae = vae_of_scale(run, 1.0, to)?;
    let seeds: Vec<u64> = (0..MEASURED).map(|i| random::derive(0, "latents' scale", i)).collect();
    let (pictures, _) = sources.pairs(&seeds, Split::Training);
    let latents = tch::no_grad(|| anyhow::Ok(vae.encode(&to_tensor(&pictures).to_device(to.1))?.mode()))?;
    let scale = 1.0 / latents.std(false).double_value(&[]);
    if finished_weights(run, Part::Vae).is_ok() {
        atomic::write(&path, serde_json::to_string(&json!(scale))?)?;
    }
    Ok(scale)
}

pub(crate) fn trained_text_encoder(run: &Path, sources: &Sources, to: (Kind, Device)) -> Result<ClipTextModel> {
    let config = serde_json::from_value(shapes::text_encoder(sources.tokenizer.vocab_size()))?;
    let source = text_tensors(&tensors(run, Part::Clip)?);
    Ok(weights::build(&source, to, |vs| ClipTextModel::new(vs, &config))?.0)
}
