//! Devices, dtypes and schedulers from their names to LibTorch's.

use anyhow::Result;
use options::{Dtype, SchedulerKind};
use requests::{Compute, Sampler};
use sampling::{Pipeline, Settings};
use tch::{Device, Kind};

/// The dtype and the device that models are to be made on. CUDA is looked for now.
pub(crate) fn resolve(compute: Compute) -> Result<(Kind, Device)> {
    let device = libtorch::resolve(compute.device)?;
    libtorch::set_tf32(compute.dtype == Dtype::Tf32)?;
    Ok((libtorch::kind(compute.dtype), device))
}

/// The most bytes that packed copies of weights may take.
pub(crate) fn packed_bytes(pipeline: &Pipeline) -> u64 {
    libtorch::half_of_memory_beyond(pipeline.reserved_bytes())
}

/// The same of a CLIP, beside which there may be a pipeline as large as Stable Diffusion in f32.
pub(crate) fn packed_bytes_of_clip() -> u64 {
    libtorch::half_of_memory_beyond(6 << 30)
}

/// What was asked for in place of the defaults.
pub(crate) fn settings(sampler: &Sampler, default: &Settings) -> Settings {
    let steps = sampler.steps.unwrap_or(default.steps);
    let guidance_scale = sampler.guidance_scale.unwrap_or(default.guidance_scale);
    // Another scheduler than the default's may have no eta.
    let eta = sampler.eta.or(if sampler.scheduler.is_none() { default.eta } else { None });
    let scheduler = sampler.scheduler.or(default.scheduler);
    Settings { steps, guidance_scale, scheduler, eta, ..default.clone() }
}

/// diffusers' name of the scheduler that generates.
pub(crate) fn scheduler_name(settings: &Settings, pipeline: &Pipeline) -> &'static str {
    settings.scheduler.map_or_else(|| pipeline.scheduler.kind(), Ok).map_or("unknown", SchedulerKind::class_name)
}
