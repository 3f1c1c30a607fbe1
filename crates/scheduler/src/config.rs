//! `scheduler_config.json`.

use std::fmt::Display;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, PredictionType, SchedulerKind, TimestepSpacing};

/// The keys of a `scheduler_config.json`, for whichever scheduler is built from it.
///
/// Absent keys have diffusers' defaults, which here are the same for every scheduler but for the two that are `Option`s
/// and say so: those fall back to the default of the class that is *built*, not of the one that the file names. So
/// a DPM-Solver built from Stable Diffusion's PNDM file gets `linspace` spacing. Unknown keys are ignored, and so are
/// keys that the scheduler does not have (PNDM has no `rescale_betas_zero_snr`), as in diffusers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// The scheduler that the file is for; [`kind`](Self::kind) parses it.
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    /// T, the number of timesteps that the model was trained with. Default 1000.
    pub num_train_timesteps: usize,
    /// β of timestep 0. Default 0.0001.
    pub beta_start: f64,
    /// β of timestep T − 1. Default 0.02.
    pub beta_end: f64,
    /// The curve between them. Default linear.
    pub beta_schedule: BetaSchedule,
    /// All T betas, in place of a curve.
    pub trained_betas: Option<Vec<f32>>,
    /// Whether to rescale the betas to zero terminal SNR (Lin et al. 2023). Default false.
    pub rescale_betas_zero_snr: bool,
    /// What the model predicts. Default epsilon.
    pub prediction_type: PredictionType,
    /// How the sampler's timesteps are spread. Default `leading` for DDPM, DDIM and PNDM, else `linspace`.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to every timestep of `leading` spacing. Default 0.
    pub steps_offset: usize,
    /// Whether ᾱ past the last step is 1, else ᾱ of timestep 0. Default true for DDIM, false for PNDM.
    pub set_alpha_to_one: Option<bool>,
    /// DDPM, DDIM: whether to clamp the predicted clean sample. Default true; Stable Diffusion says false.
    pub clip_sample: bool,
    /// DDPM, DDIM: to which magnitude. Default 1.
    pub clip_sample_range: f64,
    /// Dynamic thresholding, for pixel-space models; not supported. Default false.
    pub thresholding: bool,
    /// DDPM: the variance of the noise that a step adds. Default `fixed_small`.
    pub variance_type: Option<VarianceType>,
    /// DDIM: how much of DDPM's noise a step adds, from 0 to 1. Not in diffusers' files, where it is an argument of
    /// every step; see [`with_eta`](Self::with_eta). Default 0.
    pub eta: f64,
    /// PNDM: whether to start with linear multistep at once, as Stable Diffusion does. Default false.
    pub skip_prk_steps: bool,
    /// DPM-Solver: the algorithm; only `dpmsolver++` is supported. The default.
    pub algorithm_type: String,
    /// DPM-Solver: the second-order rule; only `midpoint` is supported. The default.
    pub solver_type: String,
    /// DPM-Solver: 1 or 2. Default 2.
    pub solver_order: usize,
    /// DPM-Solver: whether the last step is of order 1 when there are fewer than 15. Default true.
    pub lower_order_final: bool,
    /// DPM-Solver: whether the last step always is of order 1. Default false.
    pub euler_at_final: bool,
    /// DPM-Solver: the smallest half-log-SNR to start from. Default none.
    pub lambda_min_clipped: Option<f64>,
    /// DPM-Solver, Euler: where the last step goes. Default zero.
    pub final_sigmas_type: FinalSigmas,
    /// DPM-Solver, Euler: whether to space σ as Karras et al. 2022 (eq. 5, ρ = 7). Default false.
    pub use_karras_sigmas: Option<bool>,
    /// Not supported. Default false.
    pub use_exponential_sigmas: Option<bool>,
    /// Not supported. Default false.
    pub use_beta_sigmas: Option<bool>,
    /// Not supported. Default false.
    pub use_lu_lambdas: Option<bool>,
    /// Not supported. Default false.
    pub use_flow_sigmas: Option<bool>,
    /// The least σ of the Karras spacing. Default the schedule's.
    pub sigma_min: Option<f64>,
    /// The largest σ of the Karras spacing. Default the schedule's.
    pub sigma_max: Option<f64>,
    /// Euler: how σ between timesteps is found; only `linear` is supported. The default.
    pub interpolation_type: String,
    /// Euler: only `discrete` is supported. The default.
    pub timestep_type: String,
}

/// How β grows from `beta_start` to `beta_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly.
    #[default]
    Linear,
    /// √β evenly: the latent diffusion models.
    ScaledLinear,
    /// ᾱ as a squared cosine (Nichol & Dhariwal 2021), whatever `beta_start` and `beta_end` are.
    SquaredcosCapV2,
}

/// Where the last step of a σ-based sampler goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmas {
    /// To σ = 0: a DPM-Solver then returns its last prediction of the clean sample.
    #[default]
    Zero,
    /// To the σ of timestep 0. DPM-Solver of diffusers 0.21.2 and before (AttnDreamBooth's) always ends so.
    SigmaMin,
}

/// The variance of the noise that a DDPM step adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceType {
    /// The posterior's, β̃.
    #[default]
    FixedSmall,
    /// The same, by way of its logarithm.
    FixedSmallLog,
    /// β.
    FixedLarge,
    /// Not supported.
    FixedLargeLog,
    /// Predicted by the model; not supported.
    Learned,
    /// Predicted by the model; not supported.
    LearnedRange,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: None,
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::default(),
            trained_betas: None,
            rescale_betas_zero_snr: false,
            prediction_type: PredictionType::default(),
            timestep_spacing: None,
            steps_offset: 0,
            set_alpha_to_one: None,
            clip_sample: true,
            clip_sample_range: 1.0,
            thresholding: false,
            variance_type: None,
            eta: 0.0,
            skip_prk_steps: false,
            algorithm_type: "dpmsolver++".to_owned(),
            solver_type: "midpoint".to_owned(),
            solver_order: 2,
            lower_order_final: true,
            euler_at_final: false,
            lambda_min_clipped: None,
            final_sigmas_type: FinalSigmas::default(),
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            use_lu_lambdas: None,
            use_flow_sigmas: None,
            sigma_min: None,
            sigma_max: None,
            interpolation_type: "linear".to_owned(),
            timestep_type: "discrete".to_owned(),
        }
    }
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    /// The file is unreadable, is not JSON, or has a value that does not fit its key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = json::text(path).map_err(|reason| Error::Read { path: path.to_owned(), reason })?;
        let json = infinities_as_null(&text);
        serde_json::from_str(&json).map_err(|reason| Error::Parse { path: path.to_owned(), reason })
    }

    /// The scheduler that the file names.
    ///
    /// # Errors
    /// It names none, or one that does not exist here.
    pub fn kind(&self) -> Result<SchedulerKind, Error> {
        Ok(self.class_name.as_deref().ok_or(Error::NoClassName)?.parse()?)
    }

    /// Fails for numbers that no scheduler can compute with.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let timesteps = self.num_train_timesteps;
        limits::within("num_train_timesteps", timesteps, 1..=MAX_TIMESTEPS, "each has a place in tables")?;
        limits::within("steps_offset", self.steps_offset, 0..=timesteps, "it shifts timesteps of the training")?;
        limits::within("clip_sample_range", self.clip_sample_range, 0.0..=f64::MAX, "it is a magnitude")?;
        for (key, sigma) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(sigma) = sigma {
                limits::within(key, sigma, f64::MIN_POSITIVE..=f64::MAX, "it is a magnitude of noise")?;
            }
        }
        Ok(())
    }

    /// Fails when the predicted clean sample is to be thresholded dynamically.
    pub(crate) fn refuse_thresholding(&self, kind: SchedulerKind) -> Result<(), Error> {
        let instead = "false, it is unsuitable for latents";
        if self.thresholding { Err(unsupported(kind, "thresholding", &true, instead)) } else { Ok(()) }
    }

    /// Fails for the σ spacings that exist only in diffusers.
    pub(crate) fn refuse_exotic_sigmas(&self, kind: SchedulerKind) -> Result<(), Error> {
        let exotic = [
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("use_lu_lambdas", self.use_lu_lambdas),
            ("use_flow_sigmas", self.use_flow_sigmas),
        ];
        match exotic.into_iter().find(|(_, value)| *value == Some(true)) {
            Some((key, _)) => Err(unsupported(kind, key, &true, "false, or use_karras_sigmas")),
            None => Ok(()),
        }
    }
}

/// Every published model has 1000.
const MAX_TIMESTEPS: usize = 1_000_000;

pub(crate) fn unsupported(kind: SchedulerKind, key: &'static str, value: &dyn Display, instead: &'static str) -> Error {
    Error::Unsupported { kind, key, value: value.to_string(), instead }
}

/// Python writes infinities into JSON, which has none (`"lambda_min_clipped": -Infinity` in every DPM-Solver's file);
/// they mean that there is no bound. Padded, so that errors still name the right column.
fn infinities_as_null(text: &str) -> String {
    const WORDS: [(&str, &str); 2] = [("-Infinity", "null     "), ("Infinity", "null    ")];
    let mut json = String::with_capacity(text.len());
    let mut rest = text;
    let (mut in_string, mut escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        let word = WORDS.into_iter().find(|(word, _)| !in_string && rest.starts_with(word));
        let (read, written) = word.unwrap_or_else(|| (&rest[..c.len_utf8()], &rest[..c.len_utf8()]));
        in_string ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        json.push_str(written);
        rest = &rest[read.len()..];
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_infinities_outside_of_strings_change() {
        let python = r#"{"a": -Infinity, "Infinity": "\"-Infinity", "b": [Infinity]}"#;
        let json = r#"{"a": null     , "Infinity": "\"-Infinity", "b": [null    ]}"#;
        assert_eq!(infinities_as_null(python), json);
    }
}
