//! `--steps`, `--guidance-scale` and `--scheduler`; `--height`, `--width` and `--batch-size`.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use runs::ConfigLayers;
use sampling::{Pipeline, Settings};
use scheduler::SchedulerKind;
use serde::Serialize;

use crate::number;

/// How noise becomes a picture.
#[derive(Args, Debug, Clone, Default, Serialize)]
pub(crate) struct SamplerArgs {
    /// Denoising steps; if not given, 50, and the run's validation.steps for evaluate and ablate
    #[arg(long)]
    pub(crate) steps: Option<usize>,
    /// How strongly the prompt counts; 1 or less switches guidance off. If not given, the run's
    /// validation.guidance_scale, or what the model's attndreambooth.json says, or 7.5
    #[arg(long)]
    pub(crate) guidance_scale: Option<f64>,
    /// ddpm, ddim, pndm, dpm-solver++, euler or euler-ancestral; if not given, the model's own (dpm-solver++ where
    /// that is another of diffusers'), and for evaluate
    /// dpm-solver++, which the authors draw with (they end at the least noise of training, final_sigmas_type sigma_min,
    /// and we at none, where the model's scheduler_config.json does not say otherwise)
    #[arg(long)]
    pub(crate) scheduler: Option<String>,
}

impl SamplerArgs {
    /// The scheduler that was asked for.
    pub(crate) fn kind(&self) -> Result<Option<SchedulerKind>> {
        Ok(self.scheduler.as_deref().map(str::parse).transpose()?)
    }

    /// These in place of the model's.
    pub(crate) fn settings(&self, default: &Settings) -> Result<Settings> {
        let steps = self.steps.unwrap_or(default.steps);
        let guidance_scale = self.guidance_scale.unwrap_or(default.guidance_scale);
        Ok(Settings { steps, guidance_scale, scheduler: self.kind()?, ..default.clone() })
    }
}

/// The guidance that a model's author recommends.
pub(crate) fn guidance_of_model(model: &Path) -> Result<f64> {
    Ok(ConfigLayers::of_model(model)?.finish()?.validation.guidance_scale)
}

/// How large pictures are, and how many are drawn at once.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct SizeArgs {
    /// Height in pixels; what the model was trained for if not given
    #[arg(long)]
    height: Option<i64>,
    /// Width in pixels
    #[arg(long)]
    width: Option<i64>,
    /// Pictures drawn at once; the result does not depend on it
    #[arg(long, default_value_t = 4, value_parser = number::within(number::BATCH, number::BATCH_REASON))]
    batch_size: u32,
}

impl Default for SizeArgs {
    fn default() -> Self {
        Self { height: None, width: None, batch_size: 4 }
    }
}

impl SizeArgs {
    /// Height and width in pixels; of the two, what is not given is `side`.
    pub(crate) fn or(&self, side: i64) -> [i64; 2] {
        [self.height, self.width].map(|given| given.unwrap_or(side))
    }

    /// Pictures drawn at once, at least one.
    pub(crate) fn batch(&self) -> usize {
        self.batch_size as usize
    }
}

/// diffusers' name of the scheduler that draws.
pub(crate) fn scheduler_name(settings: &Settings, pipeline: &Pipeline) -> &'static str {
    settings.scheduler.map_or_else(|| pipeline.scheduler.kind(), Ok).map_or("unknown", SchedulerKind::class_name)
}
