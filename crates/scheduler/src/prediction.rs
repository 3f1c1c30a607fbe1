//! What the model predicts, and how to get from it to the clean sample and the noise.

use tch::Tensor;

use crate::config::unsupported;
use crate::{Error, PredictionType, SchedulerKind};

/// The signal and noise levels of a variance-preserving process: α = √ᾱ and σ = √(1 − ᾱ), rounded to f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    pub(crate) alpha: f64,
    pub(crate) sigma: f64,
}

impl Level {
    pub(crate) fn new(alpha_cumprod: f32) -> Self {
        Self { alpha: alpha_cumprod.sqrt().into(), sigma: (1.0 - alpha_cumprod).sqrt().into() }
    }
}

/// What a prediction means for the clean sample and the noise.
pub(crate) trait Prediction {
    /// Fails where x₀ cannot be had from ε, for x holds no signal: at zero terminal SNR.
    fn refuse_no_signal(self, kind: SchedulerKind, levels: impl Iterator<Item = Level>) -> Result<(), Error>;

    /// The clean sample that the model's `output` for `sample` means.
    fn to_x0(self, output: &Tensor, sample: &Tensor, level: Level) -> Tensor;

    /// The noise that the model's `output` for `sample` means.
    fn to_epsilon(self, output: &Tensor, sample: &Tensor, level: Level) -> Tensor;
}

impl Prediction for PredictionType {
    fn refuse_no_signal(self, kind: SchedulerKind, mut levels: impl Iterator<Item = Level>) -> Result<(), Error> {
        if self == Self::Epsilon && levels.any(|level| level.alpha == 0.0) {
            let instead = "v_prediction, or rescale_betas_zero_snr = false";
            return Err(unsupported(kind, "prediction_type", &"epsilon", instead));
        }
        Ok(())
    }

    fn to_x0(self, output: &Tensor, sample: &Tensor, Level { alpha, sigma }: Level) -> Tensor {
        match self {
            Self::Epsilon => (sample - output * sigma) / alpha,
            Self::VPrediction => sample * alpha - output * sigma,
            Self::Sample => output.shallow_clone(),
        }
    }

    fn to_epsilon(self, output: &Tensor, sample: &Tensor, Level { alpha, sigma }: Level) -> Tensor {
        match self {
            Self::Epsilon => output.shallow_clone(),
            Self::VPrediction => output * alpha + sample * sigma,
            Self::Sample => (sample - output * alpha) / sigma,
        }
    }
}
