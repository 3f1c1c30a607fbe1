//! Sampling by σ = √((1 − ᾱ) / ᾱ), the noise relative to the signal.

use tch::Tensor;

use crate::timesteps::{linspace, trailing};
use crate::{Error, FinalSigmas, NoiseSchedule, PredictionType, SchedulerConfig, TimestepSpacing};

/// Sampling in the coordinates x/√ᾱ, where x = x₀ + σ ε: what Euler and Euler ancestral share.
#[derive(Debug)]
pub(crate) struct SigmaPath {
    pub(crate) timesteps: Vec<f32>,
    /// One more than timesteps.
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
    prediction_type: PredictionType,
}

impl SigmaPath {
    /// At the σ of the spaced timesteps, or between the first and the last of them as Karras et al. (eq. 5).
    pub(crate) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, Error> {
        let table = NoiseSchedule::with_finite_sigmas(config)?.sigmas();
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
        let mut timesteps = floats(spacing, table.len(), steps, config.steps_offset);
        if let Some(t) = timesteps.iter().find(|&&t| t > (table.len() - 1) as f32) {
            return Err(Error::Timestep { steps, spacing, timestep: *t as usize, last: table.len() - 1 });
        }
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| interpolate(&table, t.into())).collect();
        if config.use_karras_sigmas == Some(true) {
            sigmas = karras(config, (sigmas[0], sigmas[steps - 1]), steps);
            timesteps = sigmas.iter().map(|&sigma| timestep_of(sigma, &table) as f32).collect();
        }
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        sigmas.push(final_sigma(config, &table));
        let most = sigmas.iter().copied().fold(0.0, f32::max);
        let init_noise_sigma = match spacing {
            TimestepSpacing::Leading => (most * most + 1.0).sqrt(),
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => most,
        };
        Ok(Self { timesteps, sigmas, init_noise_sigma, prediction_type: config.prediction_type })
    }

    pub(crate) fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma.into()
    }

    /// σ before and after every step.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (f32, f32)> {
        self.sigmas.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Back to the variance-preserving coordinates that the model knows.
    pub(crate) fn scale_model_input(&self, index: usize, sample: &Tensor) -> Tensor {
        match self.sigmas.get(index) {
            Some(sigma) => sample / f64::from((sigma * sigma + 1.0).sqrt()),
            None => sample.shallow_clone(),
        }
    }

    /// dx/dσ = (x − x₀) / σ.
    pub(crate) fn derivative(&self, index: usize, output: &Tensor, sample: &Tensor) -> Tensor {
        let sigma = self.sigmas[index];
        let x0 = match self.prediction_type {
            PredictionType::Epsilon => sample - output * f64::from(sigma),
            PredictionType::VPrediction => {
                let squared = sigma * sigma + 1.0;
                output * f64::from(-sigma / squared.sqrt()) + sample / f64::from(squared)
            }
            PredictionType::Sample => output.shallow_clone(),
        };
        (sample - x0) / f64::from(sigma)
    }
}

fn floats(spacing: TimestepSpacing, train: usize, steps: usize, offset: usize) -> Vec<f32> {
    match spacing {
        TimestepSpacing::Leading => {
            (0..steps).rev().map(|i| (i * (train / steps)).saturating_add(offset) as f32).collect()
        }
        TimestepSpacing::Linspace => linspace(train - 1, steps).map(|t| t as f32).collect(),
        TimestepSpacing::Trailing => trailing(train, train, steps).into_iter().map(|t| t as f32).collect(),
    }
}

/// σ at a timestep between trained ones. `t` must be in the table.
fn interpolate(table: &[f32], t: f64) -> f64 {
    let below = (t as usize).min(table.len() - 1);
    let [low, high] = [below, (below + 1).min(table.len() - 1)].map(|i| f64::from(table[i]));
    (high - low) * (t - below as f64) + low
}

/// The timestep, maybe between trained ones, that has this σ; by interpolation in ln σ.
pub(crate) fn timestep_of(sigma: f64, table: &[f32]) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let log = |i: usize| table[i].ln();
    let below = table.partition_point(|&s| f64::from(s.ln()) <= log_sigma).saturating_sub(1);
    let Some(last) = table.len().checked_sub(2) else { return 0.0 };
    let below = below.min(last);
    let weight = (f64::from(log(below)) - log_sigma) / f64::from(log(below) - log(below + 1));
    let weight = weight.clamp(0.0, 1.0);
    (1.0 - weight) * below as f64 + weight * (below + 1) as f64
}

/// `steps` noise levels from the largest to the least of `bounds` (Karras et al. 2022, eq. 5 with ρ = 7).
pub(crate) fn karras(config: &SchedulerConfig, bounds: (f64, f64), steps: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let most = config.sigma_max.unwrap_or(bounds.0).powf(1.0 / RHO);
    let least = config.sigma_min.unwrap_or(bounds.1).powf(1.0 / RHO);
    let ramp = |i| i as f64 / (steps.max(2) - 1) as f64;
    (0..steps).map(|i| (most + ramp(i) * (least - most)).powf(RHO)).collect()
}

/// Where the last step goes.
pub(crate) fn final_sigma(config: &SchedulerConfig, table: &[f32]) -> f32 {
    match config.final_sigmas_type {
        FinalSigmas::Zero => 0.0,
        FinalSigmas::SigmaMin => table[0],
    }
}
