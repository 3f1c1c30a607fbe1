//! How well images follow their prompts, by a CLIP that is given for it.

use anyhow::{Context, Result, ensure};
use clip::{ClipModel, ImageProcessor, cosine_similarity};
use images::RgbImage;
use libtorch::random;
use runs::{ModelFingerprint, StopClip, TrainConfig};
use sampling::{NotFinite, Pipeline, Request, Settings};
use tch::{Device, Kind, Tensor};
use tokenizer::Tokenizer;

use crate::phase_run::Trainer;

/// The file that a judge's folder has, and no other CLIP's.
const JUDGE_ONLY: &str = "attributes.json";

/// A CLIP, and the prompts that images are generated of.
#[derive(Debug)]
pub(crate) struct TextAlignment {
    clip: StopClip,
    model: ClipModel,
    processor: ImageProcessor,
    tokenizer: Tokenizer,
    device: Device,
    /// Which CLIP it is.
    pub(crate) fingerprint: ModelFingerprint,
}

impl TextAlignment {
    /// Loads the CLIP of a configuration, if it has one.
    ///
    /// # Errors
    /// When its folder lacks a file, or its parts do not fit each other.
    pub(crate) fn of_config(config: &TrainConfig, device: Device) -> Result<Option<Self>> {
        let clip = config.stop.as_ref().and_then(runs::Stop::clip);
        clip.map(|clip| Self::open(clip.clone(), device).context("the CLIP of --stop-clip")).transpose()
    }

    fn open(clip: StopClip, device: Device) -> Result<Self> {
        let folder = &clip.model;
        // A judge has seen the subjects that a base model has not, and what it has stopped it cannot judge any more.
        ensure!(
            !folder.join(JUDGE_ONLY).exists(),
            "{} is a judge, which only scores: name another CLIP, such as the base model's own (clip/)",
            folder.display()
        );
        let fingerprint = ModelFingerprint::of_weights(folder)?;
        let (model, _) = ClipModel::from_folder(folder, (Kind::Float, device))?;
        let (processor, tokenizer) = (ImageProcessor::from_folder(folder)?, Tokenizer::load(folder)?);
        Ok(Self { clip, model, processor, tokenizer, device, fingerprint })
    }

    /// How images are generated: in the size that the model was trained for, in few steps.
    pub(crate) fn settings(pipeline: &Pipeline, config: &TrainConfig, clip: &StopClip) -> Settings {
        config.validation.sampler(&Settings { steps: clip.steps, ..pipeline.default_settings() })
    }

    /// The mean cosine of the prompts' images with the prompts, of which CLIP reads the class noun alone. With the subject,
    /// or without it as the base model would have it; from the same noise.
    ///
    /// # Errors
    /// What the models refuse.
    pub(crate) fn of(&self, trainer: &Trainer, with_subject: bool) -> Result<f64> {
        let Trainer { config, pipeline, .. } = trainer;
        let settings = Self::settings(pipeline, config, &self.clip);
        let subject = &config.concepts()[0];
        let mut sum = 0.0;
        for (number, prompt) in (0..).zip(&self.clip.prompts) {
            let prompt = subject.fill(prompt);
            let text = subject.without_token(&prompt);
            let seed = random::derive(config.seed, "text alignment", number);
            let request = Request::new(if with_subject { &prompt } else { &text }, seed);
            match pipeline.generate(&[request], &settings, &mut |_| {}) {
                Ok(images) => sum += images.iter().map(|image| self.cosine(image, &text)).sum::<Result<f64>>()?,
                // It shows nothing.
                Err(error) if error.is::<NotFinite>() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum / self.clip.prompts.len() as f64)
    }

    fn cosine(&self, image: &RgbImage, text: &str) -> Result<f64> {
        let (width, height) = image.dimensions();
        libtorch::catch(|| {
            tch::no_grad(|| {
                let pixels = self.processor.process_rgb8(image, i64::from(height), i64::from(width))?;
                let image = self.model.image_features(&pixels.unsqueeze(0).to_device(self.device))?;
                let ids = Tensor::from_slice(&self.tokenizer.encode(text)?.ids).unsqueeze(0);
                let text = self.model.text_features(&ids.to_device(self.device))?;
                Ok(f64::try_from(cosine_similarity(&image, &text)?.squeeze())?)
            })
        })?
    }
}
