//! Trained parts, loaded to train another.

use std::path::Path;

use anyhow::Result;
use clip::ClipTextModel;
use libtorch::random;
use scenes::Split;
use serde_json::json;
use tch::{Device, Kind};
use vae::AutoencoderKl;
use weights::{Archive, Tensors};

use crate::folder::{SCALING_FACTOR, best_weights, finished_weights};
use crate::sources::to_tensor;
use crate::{Part, Sources, shapes};

/// The prefix of the text encoder's parameters within CLIP.
const TEXT_MODEL: &str = "text_model.";
/// Scenes that the latents' scale is measured on.
const MEASURED: u64 = 256;

/// A part's best weights.
pub(crate) fn tensors(run: &Path, part: Part) -> Result<Tensors> {
    Archive::open(&best_weights(run, part)?)?.tensors()
}

/// The text encoder's among CLIP's.
pub(crate) fn text_tensors(clip: &Tensors) -> Tensors {
    let text = clip.iter().filter(|(name, _)| name.starts_with(TEXT_MODEL));
    text.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// The VAE, with the measured scale of its latents.
pub(crate) fn vae(run: &Path, sources: &Sources, to: (Kind, Device)) -> Result<AutoencoderKl> {
    vae_of_scale(run, scaling_factor(run, sources, to)?, to)
}

fn vae_of_scale(run: &Path, scale: f64, to: (Kind, Device)) -> Result<AutoencoderKl> {
    let config = serde_json::from_value(shapes::vae(scale))?;
    Ok(weights::build(&tensors(run, Part::Vae)?, to, |vs| AutoencoderKl::new(vs, &config))?.0)
}

/// The factor that gives latents unit variance; measured once the VAE is finished and then kept, since the U-Net learns
/// under it.
pub(crate) fn scaling_factor(run: &Path, sources: &Sources, to: (Kind, Device)) -> Result<f64> {
    let path = run.join(SCALING_FACTOR);
    if path.exists() {
        return json::read(&path, "the scale of a VAE's latents");
    }
    let vae = vae_of_scale(run, 1.0, to)?;
    let seeds: Vec<u64> = (0..MEASURED).map(|i| random::derive(0, "latents' scale", i)).collect();
    let (images, _) = sources.pairs(&seeds, Split::Training);
    let latents = tch::no_grad(|| anyhow::Ok(vae.encode(&to_tensor(&images).to_device(to.1))?.mode()))?;
    let scale = 1.0 / latents.std(false).double_value(&[]);
    if finished_weights(run, Part::Vae).is_ok() {
        atomic::write(&path, serde_json::to_string(&json!(scale))?)?;
    }
    Ok(scale)
}

/// CLIP's text encoder.
pub(crate) fn text_encoder(run: &Path, sources: &Sources, to: (Kind, Device)) -> Result<ClipTextModel> {
    let config = serde_json::from_value(shapes::text_encoder(sources.tokenizer.vocab_size()))?;
    let source = text_tensors(&tensors(run, Part::Clip)?);
    Ok(weights::build(&source, to, |vs| ClipTextModel::new(vs, &config))?.0)
}
