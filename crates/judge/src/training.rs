//! The training of a judge.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use attributes::{ATTRIBUTES, PREFIX, Reader, WEIGHTS};
use clip::ClipModel;
use libtorch::random;
use pretrainer::{Component, Dtype, Part, Sources, Training, accuracy, contrastive_loss, prepare, preprocessor};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use vae::AutoencoderKl;
use weights::{Archive, Init, Parameters};

use crate::labels::{Labels, attributes};
use crate::model::{FEATURES, clip, config};
use crate::pictures::{GROUP, Pictures, REFILL};

pub use pretrainer::Config;

/// How much the thing that a picture shows counts, beside the captions.
const IDENTITY_WEIGHT: f64 = 1.0;
/// How much reading counts.
const READING_WEIGHT: f64 = 0.2;
/// The temperature of likenesses.
const TEMPERATURE: f64 = 0.07;
/// What the names of things' directions begin with, which only training knows.
const DIRECTIONS: &str = "directions";

/// The preset that trains the judge: `pool` counts pictures that are made as generated ones.
pub fn preset() -> Config {
    Config { seed: 1, steps: 14_000, pool: 4096, decay: 0.8, dtype: Dtype::Bf16, ..Config::preset(Part::Clip) }
}

/// Starts the training of a judge in the folder `run`, or resumes the one there; `miniature` has the VAE that pictures go through.
///
/// # Errors
/// When the folder is in use or has another configuration, or the VAE cannot be opened.
pub fn training(config: &Config, sources: &Sources, miniature: &Path, run: &Path, device: Device) -> Result<Training> {
    config.check(Part::Clip)?;
    ensure!(
        config.batch_size >= 2 * GROUP && config.pool >= GROUP,
        "batch_size is {} and pool {}, but half of a batch are groups of {GROUP} pictures of the pool",
        config.batch_size,
        config.pool
    );
    let vae = miniature.join("vae");
    let sha256 = runs::ModelFingerprint::of_weights(&vae)?.sha256;
    let record = json!({ "part": "judge", "recipe": config, "world": &*sources.world, "vae_sha256": sha256 });
    Training::open("judge", config.clone(), &record, run, device, |source| {
        let (vae, _) = AutoencoderKl::from_folder(&vae, (Kind::Float, device))?;
        let seed = random::derive(config.seed, "judge", 0);
        let shape = clip(sources.tokenizer.vocab_size())?;
        let attributes = attributes(&sources.world);
        let things = Labels::new(&sources.world).identities();
        let ((model, reader, directions), parameters) = weights::build(source, (Kind::Float, device), |vs| {
            let directions = (vs / DIRECTIONS).get("weight", &[things, FEATURES], Init::Normal(1.0));
            Ok((ClipModel::new(vs, &shape)?, Reader::new(vs, FEATURES, &attributes), directions))
        })?;
        let groups = config.batch_size / GROUP;
        let pictures = Pictures::new(sources, vae, seed, groups, config.pool / GROUP);
        let kind = config.dtype.kind();
        Ok(Box::new(Judge { model, reader, directions, parameters, pictures, sources: sources.clone(), device, kind }))
    })
}

struct Judge {
    model: ClipModel,
    reader: Reader,
    /// One for each thing.
    directions: Tensor,
    parameters: Parameters,
    pictures: Pictures,
    sources: Sources,
    device: Device,
    kind: Kind,
}

impl Component for Judge {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn losses(&mut self, step: u64) -> Result<Vec<(&'static str, Tensor)>> {
        let pictures = self.pictures.of_step(step)?;
        let captions: Vec<&str> = pictures.iter().map(|picture| picture.caption.as_str()).collect();
        let labels: Vec<_> = pictures.iter().map(|picture| &picture.label).collect();
        let images = prepare(pictures.iter().map(|picture| &picture.image));
        let images = images.to_device_(self.device, self.kind, false, false);
        let features = self.model.image_features(&images)?.to_kind(Kind::Float);
        let texts = self.model.text_features(&self.sources.ids(&captions)?)?;
        let logits = self.model.logits_per_image(&features, &texts)?;
        let contrast = contrastive_loss(&logits);
        let identities: Vec<i64> = pictures.iter().map(|picture| picture.identity.unwrap_or(-1)).collect();
        let identity = identity_loss(&features, &self.directions, &identities);
        let reading = self.reader.loss(&features, &labels);
        let total = &contrast + &identity * IDENTITY_WEIGHT + &reading * READING_WEIGHT;
        Ok(vec![
            ("loss", total),
            ("contrast_loss", contrast),
            ("identity_loss", identity),
            ("reading_loss", reading),
            ("accuracy", accuracy(&logits)),
        ])
    }

    fn period(&self) -> Option<u64> {
        Some(REFILL)
    }
}

/// Which thing a picture shows, whatever is behind it: the cross-entropy of its cosines with a learned direction for each thing (Wang
/// et al. 2018, *CosFace*, equation 3 without margin), so that pictures of one thing are alike; -1 for those that are left out. Zero
/// where all are.
fn identity_loss(features: &Tensor, directions: &Tensor, identities: &[i64]) -> Tensor {
    let identities = Tensor::from_slice(identities).to_device(features.device());
    let shown = identities.ge(0).nonzero().squeeze_dim(1);
    if shown.numel() == 0 {
        return Tensor::zeros([], (Kind::Float, features.device()));
    }
    let unit =
        |xs: &Tensor| xs / xs.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).clamp_min(1e-12).sqrt();
    let cosines = unit(&features.index_select(0, &shown)).matmul(&unit(directions).tr());
    (cosines / TEMPERATURE).cross_entropy_for_logits(&identities.index_select(0, &shown))
}

/// Writes a trained judge as a folder that is read as any CLIP, with the reader beside it; fp16.
///
/// # Errors
/// When it is not trained to its end, or a file cannot be written.
pub fn assemble(run: &Path, sources: &Sources, out: &Path) -> Result<()> {
    let trained = run.join("model.safetensors");
    ensure!(trained.exists(), "{} has no trained judge yet", run.display());
    let tensors = Archive::open(&trained)?.tensors()?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let half = |of_reader: bool| {
        let known = tensors.iter().filter(|(name, _)| !name.starts_with(DIRECTIONS));
        let chosen = known.filter(move |(name, _)| name.starts_with(PREFIX) == of_reader);
        chosen.map(|(name, tensor)| (name, tensor.to_kind(Kind::Half)))
    };
    weights::save(&out.join("model.safetensors"), half(false))?;
    weights::save(&out.join(WEIGHTS), half(true))?;
    let attributes = serde_json::to_value(attributes(&sources.world))?;
    for (file, value) in [
        ("config.json", config(sources.tokenizer.vocab_size())),
        ("preprocessor_config.json", preprocessor()?),
        (ATTRIBUTES, attributes),
    ] {
        atomic::write(&out.join(file), format!("{}\n", serde_json::to_string_pretty(&value)?))?;
    }
    Ok(sources.tokenizer.save(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three pictures in two dimensions, one of them left out.
    #[test]
    fn the_loss_of_identity_is_that_of_cosines() {
        let features = Tensor::from_slice2(&[[2.0f32, 0.0], [3.0, 3.0], [5.0, -5.0]]);
        let directions = Tensor::from_slice2(&[[0.5f32, 0.0], [0.0, 4.0]]);
        let loss = identity_loss(&features, &directions, &[0, 1, -1]).double_value(&[]);
        // The first has the cosines 1 and 0, the second 1/√2 twice.
        let first = -(1.0 / TEMPERATURE - ((1.0 / TEMPERATURE).exp() + 1.0).ln());
        assert!((loss - (first + 2f64.ln()) / 2.0).abs() < 1e-5, "{loss}");
        assert_eq!(identity_loss(&features, &directions, &[-1, -1, -1]).double_value(&[]), 0.0);
    }
}
