//! Devices, dtypes and schedulers from their names to LibTorch's.

use anyhow::Result;
use options::{DeviceChoice, Dtype};
use requests::{Compute, Sampler};
use sampling::{Pipeline, Settings};
use scheduler::SchedulerKind;
use tch::{Device, Kind};

/// The device that was asked for. CUDA is looked for now.
pub(crate) fn device(choice: DeviceChoice) -> Result<Device> {
    Ok(choice.to_string().parse::<libtorch::DeviceChoice>()?.resolve()?)
}

/// The dtype and the device that models are to be made on.
pub(crate) fn resolve(compute: Compute) -> Result<(Kind, Device)> {
    let device = device(compute.device)?;
    libtorch::set_tf32(compute.dtype == Dtype::Tf32)?;
    let kind = match compute.dtype {
        Dtype::Fp32 | Dtype::Tf32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::Fp16 => Kind::Half,
    };
    Ok((kind, device))
}

/// The scheduler that was asked for.
pub(crate) fn scheduler(kind: Option<options::SchedulerKind>) -> Result<Option<SchedulerKind>> {
    Ok(kind.map(|kind| kind.short_name().parse()).transpose()?)
}

/// What was asked for in place of the defaults.
pub(crate) fn settings(sampler: &Sampler, default: Settings) -> Result<Settings> {
    let steps = sampler.steps.unwrap_or(default.steps);
    let guidance_scale = sampler.guidance_scale.unwrap_or(default.guidance_scale);
    Ok(Settings { steps, guidance_scale, scheduler: scheduler(sampler.scheduler)?, ..default })
}

/// diffusers' name of the scheduler that generates.
pub(crate) fn scheduler_name(settings: &Settings, pipeline: &Pipeline) -> &'static str {
    settings.scheduler.map_or_else(|| pipeline.scheduler.kind(), Ok).map_or("unknown", SchedulerKind::class_name)
}
