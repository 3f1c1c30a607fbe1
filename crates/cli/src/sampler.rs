//! `--steps`, `--guidance-scale` and `--scheduler`; `--height`, `--width` and `--batch-size`.

use anyhow::Result;
use clap::Args;
use sampling::{Pipeline, Settings};
use scheduler::SchedulerKind;
use serde::Serialize;

/// How noise becomes a picture.
#[derive(Args, Debug, Clone, Serialize)]
pub(crate) struct SamplerArgs {
    /// Denoising steps
    #[arg(long, default_value_t = 50)]
    pub(crate) steps: usize,
    /// How strongly the prompt counts; 1 or less switches guidance off
    #[arg(long, default_value_t = 7.5)]
    pub(crate) guidance_scale: f64,
    /// ddpm, ddim, pndm, dpm-solver++, euler or euler-ancestral; if not given, the model's own, and the authors'
    /// dpm-solver++ for evaluate
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
        let (steps, guidance_scale) = (self.steps, self.guidance_scale);
        Ok(Settings { steps, guidance_scale, scheduler: self.kind()?, ..default.clone() })
    }
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
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
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
