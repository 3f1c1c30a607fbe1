//! Training steps on batches that are the same each time.

use std::path::Path;

use anyhow::Result;
use libtorch::random;
use methods::Batch;
use optimizer::AdamW;
use options::Dtype;
use runs::TrainConfig;
use sampling::Pipeline;
use tch::{Kind, Tensor};
use trainer::{BatchIndex, Batches, LatentEncoder, Trainer};
use unet::UNet;

use crate::prepared::{Prepared, images, size, timesteps};
use crate::settings::Settings;

/// Encodes the same images again for each step.
struct SameBatch {
    encoder: LatentEncoder,
    images: Tensor,
    noise: Tensor,
    posterior_noise: Tensor,
    timesteps: Tensor,
    prompts: Vec<String>,
}

impl SameBatch {
    fn new(pipeline: &Pipeline, config: &TrainConfig, settings: &Settings) -> Result<Self> {
        let images = images(settings)?;
        let encoder = LatentEncoder::new(pipeline, config)?;
        let side = settings.side()? / 8;
        let shape = [settings.batch_size, pipeline.unet.config().in_channels, side, side];
        // The trainer's batches lie on the device as well.
        let there = |tensor: Tensor| libtorch::upload(&tensor, settings.device);
        Ok(Self {
            encoder,
            images,
            noise: there(random::normal(5, &shape)),
            posterior_noise: there(random::normal(6, &shape)),
            timesteps: there(timesteps(settings.batch_size)),
            prompts: vec![config.fill(&config.prompt)],
        })
    }
}

impl Batches for SameBatch {
    fn batch(&mut self, _: BatchIndex) -> Result<Batch> {
        let moments = self.encoder.moments(&self.images)?;
        Ok(Batch {
            latents: self.encoder.sample(&moments, &self.posterior_noise)?,
            noise: self.noise.shallow_clone(),
            timesteps: self.timesteps.shallow_clone(),
            mask: None,
            prompts: self.prompts.clone(),
            class_prompts: Vec::new(),
            drawn: None,
        })
    }
}

/// A single token for every tokenizer here, the small ones too.
const CATEGORY: &str = "photo";

/// Steps of one of AttnDreamBooth's phases, by its number from 0; the check is the loss of the first.
pub(crate) fn prepare(phase: usize, settings: &Settings) -> Result<Prepared> {
    settings.check_trains()?;
    let dtype = if settings.kind == Kind::BFloat16 { Dtype::Bf16 } else { Dtype::Fp32 };
    let gradient_checkpointing = settings.gradient_checkpointing;
    let config = TrainConfig { category: CATEGORY.to_owned(), dtype, gradient_checkpointing, ..TrainConfig::paper() };
    let pipeline = Pipeline::from_folder(&settings.model, (Kind::Float, settings.device))?;
    let mut batches = SameBatch::new(&pipeline, &config, settings)?;
    let trainer = Trainer::new(config, pipeline)?;
    let mut phase_run = trainer.start(phase)?;
    Ok(Prepared::new(move || {
        let report = phase_run.step(&trainer, &mut batches)?.wait()?;
        Ok(Tensor::from(report.losses.iter().map(|(_, loss)| loss).sum::<f64>()))
    }))
}

/// AdamW with the parameters themselves, doubled, as their gradients; the check is what the step leaves of the first.
pub(crate) fn adamw(unet: &Path, settings: &Settings) -> Result<Prepared> {
    let (_, parameters) = UNet::from_folder(unet, (Kind::Float, settings.device))?;
    let trained = parameters.train(|_| true);
    for (_, parameter) in &trained {
        parameter.square().sum(Kind::Float).backward();
    }
    let mut adamw = AdamW::new(trained.iter().copied(), &optimizer::Config::default())?;
    let first = trained[0].1.shallow_clone();
    Ok(Prepared::new(move || {
        adamw.step(1e-3)?;
        Ok(tch::no_grad(|| size(&first)))
    }))
}
