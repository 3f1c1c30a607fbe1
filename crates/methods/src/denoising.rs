//! The diffusion loss.

use ::custom_diffusion::masked_loss;
use anyhow::Result;
use options::MaskedLoss;
use runs::TrainConfig;
use sampling::Pipeline;
use scheduler::{ForwardProcess, PredictionType};
use tch::{Device, Kind, Tensor};

use crate::{Batch, LossTerm};

/// The noise schedule, and how errors of prediction are weighed.
#[derive(Debug)]
pub struct Denoising {
    forward: ForwardProcess,
    prediction_type: PredictionType,
    kind: Kind,
    device: Device,
    snr_gamma: Option<f64>,
    prior_weight: Option<f64>,
    masked_loss: MaskedLoss,
}

impl Denoising {
    /// For the pipeline's noise schedule and device.
    ///
    /// # Errors
    /// When the noise schedule is not usable.
    pub fn new(pipeline: &Pipeline, config: &TrainConfig) -> Result<Self> {
        let device = pipeline.placement().1;
        Ok(Self {
            forward: ForwardProcess::new(&pipeline.scheduler, device)?,
            prediction_type: pipeline.scheduler.prediction_type,
            kind: libtorch::kind(config.dtype),
            device,
            snr_gamma: config.snr_gamma,
            prior_weight: config.prior.as_ref().map(|prior| prior.weight),
            masked_loss: config.sizes.as_ref().map_or_else(MaskedLoss::default, |sizes| sizes.masked_loss),
        })
    }

    /// The noisy latents of a batch, in the dtype of computation.
    pub(crate) fn noisy(&self, batch: &Batch) -> Result<Tensor> {
        let [latents, noise] = self.there(batch);
        Ok(self.forward.add_noise(&latents, &noise, &batch.timesteps)?.to_kind(self.kind))
    }

    fn there(&self, batch: &Batch) -> [Tensor; 2] {
        [&batch.latents, &batch.noise].map(|tensor| libtorch::upload(tensor, self.device))
    }

    /// The squared error of a prediction as terms of the loss.
    pub(crate) fn losses(&self, batch: &Batch, prediction: &Tensor) -> Result<Vec<LossTerm>> {
        let ([latents, noise], timesteps) = (self.there(batch), &batch.timesteps);
        let target = self.forward.target(&latents, &noise, timesteps)?;
        let error = (prediction.to_kind(Kind::Float) - target.to_kind(Kind::Float)).square();
        // The mean of each sample, and their weights where they differ.
        let means = |error: &Tensor| error.flatten(1, -1).mean_dim([1i64].as_slice(), false, Kind::Float);
        let per_sample = match &batch.mask {
            None => means(&error),
            Some(mask) => {
                let samples = mask.size()[0];
                let masked = masked_loss(&error.narrow(0, 0, samples), mask, self.masked_loss)?;
                Tensor::cat(&[masked, means(&error.narrow(0, samples, error.size()[0] - samples))], 0)
            }
        };
        let Some(weight) = self.prior_weight else {
            return Ok(vec![LossTerm::mean(LossTerm::DIFFUSION, self.mean(&per_sample, timesteps)?)]);
        };
        let halves = per_sample.chunk(2, 0);
        let times = timesteps.chunk(2, 0);
        // As in diffusers' train_dreambooth.py, min-SNR-γ weighs the subject's samples only.
        Ok(vec![
            LossTerm::mean(LossTerm::DIFFUSION, self.mean(&halves[0], &times[0])?),
            LossTerm::mean("prior", halves[1].mean(Kind::Float) * weight),
        ])
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
