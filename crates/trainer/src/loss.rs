//! The loss of one batch.

use anyhow::Result;
use regularizer::AttentionRegularizer;
use runs::{StageConfig, TrainConfig};
use sampling::Pipeline;
use scheduler::{ForwardProcess, PredictionType};
use tch::{Device, Kind, Tensor};
use unet::AttentionObserver;

use crate::Subject;

/// One batch with all its randomness.
#[derive(Debug)]
pub struct Batch {
    /// The augmented crops' latents [batch, 4, h, w], f32, as [`crate::LatentEncoder::sample`] makes them; with prior
    /// preservation those of the subject come first, as many of the category follow.
    pub latents: Tensor,
    /// The noise to be predicted: [batch, 4, h, w], standard normal.
    pub noise: Tensor,
    /// One for each image: `[batch]`, int64 in 0..1000.
    pub timesteps: Tensor,
}

/// The two parts of the loss, of shape [] and in f32, on the autograd graph.
#[derive(Debug)]
pub struct Losses {
    /// The mean squared error of the prediction.
    pub diffusion: Tensor,
    /// The regulariser.
    pub attention: Tensor,
}

/// What turns batches into losses.
#[derive(Debug)]
pub struct Objective {
    forward: ForwardProcess,
    prediction_type: PredictionType,
    kind: Kind,
    device: Device,
    snr_gamma: Option<f64>,
    prior_weight: Option<f64>,
    regularizer: regularizer::Config,
    divide_by_accumulation: bool,
}

impl Objective {
    /// For the pipeline's noise schedule and device.
    ///
    /// # Errors
    /// When the noise schedule is not usable.
    pub fn new(pipeline: &Pipeline, config: &TrainConfig) -> Result<Self> {
        let device = pipeline.placement().1;
        let regularizer = regularizer::Config {
            mode: config.regularizer.mode,
            batch: config.regularizer.batch,
            category: config.regularizer.category,
            ..Default::default()
        };
        Ok(Self {
            forward: ForwardProcess::new(&pipeline.scheduler, device)?,
            prediction_type: pipeline.scheduler.prediction_type,
            kind: libtorch::kind(config.dtype),
            device,
            snr_gamma: config.snr_gamma,
            prior_weight: config.prior.as_ref().map(|prior| prior.weight),
            regularizer,
            divide_by_accumulation: config.regularizer.divide_by_accumulation,
        })
    }

    /// What each loss of one of `parts` batches is divided by, so that the parts' losses, and their gradients, add up to
    /// those of one batch that is as large as all of them: the number of parts for a mean over samples, 1 for a sum.
    pub(crate) fn divisors(&self, parts: usize) -> (f64, f64) {
        let parts = parts as f64;
        let sum = self.regularizer.batch == regularizer::Batch::Sum && !self.divide_by_accumulation;
        (parts, if sum { 1.0 } else { parts })
    }

    /// The losses of a batch in a stage, given hidden states [prompts, positions, width]: of the prompt and, with
    /// prior preservation, of the category's prompt.
    ///
    /// # Errors
    /// What the models refuse.
    pub fn losses(
        &self,
        pipeline: &Pipeline,
        subject: &Subject,
        stage: &StageConfig,
        batch: &Batch,
        encoder_hidden_states: &Tensor,
    ) -> Result<Losses> {
        let latents = libtorch::upload(&batch.latents, self.device);
        let noise = libtorch::upload(&batch.noise, self.device);
        let timesteps = &batch.timesteps;
        let noisy = self.forward.add_noise(&latents, &noise, timesteps)?.to_kind(self.kind);
        let size = latents.size()[0];
        let prompts = encoder_hidden_states.size()[0];
        let text = encoder_hidden_states.to_kind(self.kind);
        // The U-Net reads one prompt for all samples, or one for each.
        let text = if prompts == 1 { text } else { text.repeat_interleave_self_int(size / prompts, 0, None) };

        let mut regularizer = stage.regularizes().then(|| self.regularizer(subject, stage, size)).transpose()?;
        let observer = regularizer.as_mut().map(|regularizer| regularizer as &mut dyn AttentionObserver);
        let prediction = pipeline.unet.forward(&noisy, timesteps, &text, observer)?;
        let _span = tracing::trace_span!("train/loss").entered();
        let attention = match regularizer {
            Some(mut regularizer) => regularizer.finish()?.loss,
            None => Tensor::zeros([0i64; 0], (Kind::Float, self.device)),
        };
        let target = self.forward.target(&latents, &noise, timesteps)?;
        Ok(Losses { diffusion: self.diffusion(&prediction, &target, timesteps)?, attention })
    }

    fn regularizer(&self, subject: &Subject, stage: &StageConfig, size: i64) -> Result<AttentionRegularizer> {
        let config = regularizer::Config {
            lambda_mean: stage.lambda_mean,
            lambda_variance: stage.lambda_variance,
            ..self.regularizer.clone()
        };
        let regularizer =
            AttentionRegularizer::new(&config, &subject.placeholder_positions, &subject.category_positions)?;
        // Class images have another prompt.
        Ok(if self.prior_weight.is_some() { regularizer.first_samples(size / 2) } else { regularizer })
    }

    fn diffusion(&self, prediction: &Tensor, target: &Tensor, timesteps: &Tensor) -> Result<Tensor> {
        let error = (prediction.to_kind(Kind::Float) - target.to_kind(Kind::Float)).square();
        // The mean of each sample, and their weights where they differ.
        let per_sample = error.flatten(1, -1).mean_dim([1i64].as_slice(), false, Kind::Float);
        let Some(weight) = self.prior_weight else { return self.mean(&per_sample, timesteps) };
        let halves = per_sample.chunk(2, 0);
        let times = timesteps.chunk(2, 0);
        // As in diffusers' train_dreambooth.py, min-SNR-γ weighs the subject's samples only.
        Ok(self.mean(&halves[0], &times[0])? + halves[1].mean(Kind::Float) * weight)
    }

    /// The mean over samples, weighted by min-SNR-γ where asked for: min(SNR, γ) / SNR for noise, / (SNR + 1) for
    /// velocity. At a zero-terminal SNR the first is 1, its limit, where the quotient would be 0 / 0.
    fn mean(&self, per_sample: &Tensor, timesteps: &Tensor) -> Result<Tensor> {
        let Some(gamma) = self.snr_gamma else { return Ok(per_sample.mean(Kind::Float)) };
        let snr = self.forward.snr(timesteps)?;
        let capped = snr.clamp_max(gamma);
        let weight = match self.prediction_type {
            PredictionType::VPrediction => capped / (snr + 1.0),
            PredictionType::Epsilon => (gamma * snr.reciprocal()).clamp_max(1.0),
            PredictionType::Sample => capped,
        };
        Ok((per_sample * weight).mean(Kind::Float))
    }
}
