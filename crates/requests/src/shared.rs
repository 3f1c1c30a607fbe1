//! Options that several commands have.

use std::path::PathBuf;

use clap::Args;
use options::{DeviceChoice, Dtype, PredictionType, SchedulerKind};
use serde::{Deserialize, Serialize};

use crate::bounded;

/// Where, and in which precision, to compute.
#[derive(Args, Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Computing options")]
pub struct Compute {
    /// Device to compute on: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", env = "ATTNDREAMBOOTH_DEVICE", hide_env_values = true, default_value_t)]
    #[serde(default)]
    pub device: DeviceChoice,
    /// Precision of weights and computation
    #[arg(long, value_enum, default_value_t, visible_alias = "mixed-precision")]
    #[serde(default)]
    pub dtype: Dtype,
}

/// How noise becomes an image.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Sampling options")]
pub struct Sampler {
    /// Denoising steps
    ///
    /// Unset, 50; for `evaluate` and `ablate` the run's validation.steps.
    #[arg(long, visible_alias = "num-inference-steps")]
    pub steps: Option<usize>,
    /// Classifier-free guidance: how strongly the prompt counts; 1 or less switches it off
    ///
    /// Unset, the run's validation.guidance_scale, or what attndreambooth.json in the model's folder says, or 7.5.
    #[arg(long, visible_alias = "cfg-scale", value_name = "SCALE")]
    pub guidance_scale: Option<f64>,
    /// Scheduler of the denoising steps
    ///
    /// Unset, the run's validation.scheduler, or the model's own (dpm-solver++ where diffusers has one for it that this program lacks), and for `evaluate`
    /// dpm-solver++, as the authors use. They end at the least noise of training (final_sigmas_type sigma_min); this program
    /// ends at none, unless the model's scheduler_config.json says otherwise.
    #[arg(long, value_enum, visible_alias = "sampler")]
    pub scheduler: Option<SchedulerKind>,
    /// Eta of the DDIM scheduler, from 0 to 1: the share of DDPM's noise that each step adds
    ///
    /// Unset, the run's validation.eta, or 0.
    #[arg(long)]
    pub eta: Option<f64>,
}

/// How large images are, and how many are generated together.
#[derive(Args, Debug, Clone, Copy, Serialize, Deserialize)]
#[command(next_help_heading = "Sampling options")]
pub struct Size {
    /// Height in pixels; unset, what the model was trained for
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<i64>,
    /// Width in pixels; unset, what the model was trained for
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<i64>,
    /// Images generated together; the result does not depend on it
    #[arg(long, value_name = "N", default_value_t = Self::BATCH, value_parser = bounded::batch)]
    #[serde(default = "Size::batch")]
    pub batch_size: u32,
}

impl Size {
    const BATCH: u32 = 4;

    fn batch() -> u32 {
        Self::BATCH
    }

    /// Height and width in pixels; an unset one is `side`.
    pub fn or(&self, side: i64) -> [i64; 2] {
        [self.height, self.width].map(|given| given.unwrap_or(side))
    }
}

impl Default for Size {
    fn default() -> Self {
        Self { height: None, width: None, batch_size: Self::BATCH }
    }
}

/// What a model in a single file does not say of itself.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Options for a model in a single file")]
pub struct SingleFile {
    /// Folder of the tokenizer; unset, CLIP's own vocabulary
    #[arg(long, value_name = "FOLDER")]
    pub tokenizer: Option<PathBuf>,
    /// What the model predicts
    ///
    /// Needed for Stable Diffusion 2.x where the file's metadata (ModelSpec) does not say it. Unset, epsilon for 1.x.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub prediction_type: Option<PredictionType>,
    /// Folder in the diffusers layout with the configs of a model of unusual geometry; its weights are not read
    #[arg(long, value_name = "FOLDER")]
    pub model_config: Option<PathBuf>,
}

impl SingleFile {
    /// Whether any is set.
    pub fn is_set(&self) -> bool {
        self.tokenizer.is_some() || self.prediction_type.is_some() || self.model_config.is_some()
    }
}

/// Whether a command says where its time went.
#[derive(Args, Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Computing options")]
pub struct Profiling {
    /// Show where the time went, and write profile.json beside the results
    ///
    /// The file opens in chrome://tracing and ui.perfetto.dev. It is of this process alone where a run is resumed; a GPU is
    /// slower by it.
    #[arg(long)]
    #[serde(default)]
    pub profile: bool,
}
