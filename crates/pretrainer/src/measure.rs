//! Measuring a miniature on compositions that no training scene had.

use std::path::Path;

use anyhow::{Result, ensure};
use clip::ClipModel;
use images::RgbImage;
use libtorch::random;
use sampling::{Pipeline, Request, Settings};
use scenes::{Scene, Split};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::Sources;
use crate::contrast::{accuracy, prepare};
use crate::sources::to_tensor;

/// Captions to choose from: chance finds one in a hundred.
const CAPTIONS: usize = 100;
/// Sets of captions that CLIP is measured on.
const SETS: u64 = 5;
/// The guidance scale of generated images; 7.5 makes the colours of so small a model glaring.
const GUIDANCE: f64 = 3.0;
/// Images computed together.
const BATCH: usize = 20;

/// The measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// The VAE's peak signal-to-noise ratio in decibels, the mean over 100 scenes.
    pub vae_psnr: f64,
    /// How often CLIP finds the scene of a caption among 100, in [0, 1].
    pub text_to_image_recall: f64,
    /// How often CLIP finds the caption of a scene among 100, in [0, 1].
    pub image_to_text_recall: f64,
    /// How often CLIP finds the prompt of a generated image among 100, in [0, 1].
    pub generated_recall: f64,
    /// The guidance scale of the generated images.
    pub guidance_scale: f64,
    /// The prompts of the generated images.
    pub prompts: Vec<String>,
}

/// Measures the model in `folder`; returns the generated images too. `progress` is called with what is measured next.
///
/// # Errors
/// When the model cannot be loaded.
pub fn measure(
    folder: &Path,
    sources: &Sources,
    device: Device,
    progress: &mut dyn FnMut(&str),
) -> Result<(Measures, Vec<RgbImage>)> {
    tch::no_grad(|| {
        let pipeline = Pipeline::from_folder(folder, (Kind::Float, device))?;
        let (clip, _) = ClipModel::from_folder(&folder.join("clip"), (Kind::Float, device))?;
        let sets = (0..SETS).map(|set| distinct(sources, set)).collect::<Result<Vec<_>>>()?;

        progress("VAE");
        let (images, captions) = sources.pairs(&sets[0], Split::HeldOut);
        let mut psnr = 0.0;
        for part in images.chunks(BATCH) {
            let images = to_tensor(part).to_device(device);
            let rebuilt = pipeline.vae.decode(&pipeline.vae.encode(&images)?.mode())?.clamp(-1.0, 1.0);
            let squared = ((rebuilt - images) / 2.0).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
            psnr -= 10.0 * squared.log10().sum(Kind::Double).double_value(&[]);
        }

        progress("CLIP");
        let mut recalls = [0.0; 2];
        for seeds in &sets {
            let (images, captions) = sources.pairs(seeds, Split::HeldOut);
            let logits = similarities(&clip, sources, &images, &captions, device)?;
            recalls = [recalls[0] + recall(&logits.tr()) / SETS as f64, recalls[1] + recall(&logits) / SETS as f64];
        }

        progress("images");
        let settings = Settings { steps: 25, guidance_scale: GUIDANCE, ..pipeline.default_settings() };
        let requests: Vec<Request> =
            captions.iter().zip(0..).map(|(caption, seed)| Request::new(caption.as_str(), seed)).collect();
        let mut generated = Vec::new();
        for part in requests.chunks(BATCH) {
            generated.extend(pipeline.generate(part, &settings, &mut |_| {})?);
            progress(&format!("images: {} of {CAPTIONS}", generated.len()));
        }
        let logits = similarities(&clip, sources, &generated, &captions, device)?;
        let measures = Measures {
            vae_psnr: psnr / CAPTIONS as f64,
            text_to_image_recall: recalls[0],
            image_to_text_recall: recalls[1],
            generated_recall: recall(&logits),
            guidance_scale: settings.guidance_scale,
            prompts: captions,
        };
        Ok((measures, generated))
    })
}

/// Seeds of held-out scenes with different captions.
fn distinct(sources: &Sources, set: u64) -> Result<Vec<u64>> {
    let mut seen = std::collections::BTreeSet::new();
    let seeds = (0..100 * CAPTIONS as u64).map(|i| random::derive(set, "measured", i));
    let new = |seed: &u64| seen.insert(Scene::sample(&sources.world, *seed, Split::HeldOut).caption(&sources.world));
    let distinct: Vec<u64> = seeds.filter(new).take(CAPTIONS).collect();
    ensure!(distinct.len() == CAPTIONS, "the world has too few scenes: {CAPTIONS} different captions are measured");
    Ok(distinct)
}

/// [images, captions].
fn similarities(
    clip: &ClipModel,
    sources: &Sources,
    images: &[RgbImage],
    captions: &[String],
    device: Device,
) -> Result<Tensor> {
    let images = clip.image_features(&prepare(images).to_device(device))?;
    let texts = clip.text_features(&sources.ids(captions)?)?;
    clip.logits_per_image(&images, &texts)
}

fn recall(logits: &Tensor) -> f64 {
    accuracy(logits).double_value(&[])
}
