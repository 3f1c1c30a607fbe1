//! Noise schedules and samplers of diffusion models, equal to diffusers step by step.
//!
//! Two things live here. A [`Scheduler`] turns noise into latents, one model call at a time:
//!
//! ```
//! use scheduler::{SchedulerConfig, SchedulerKind};
//! use tch::{Device, Kind, Tensor};
//!
//! // SchedulerConfig::from_file("model/scheduler/scheduler_config.json")? reads a model's own.
//! let config = SchedulerConfig::default();
//! let mut scheduler = config.build(SchedulerKind::Euler, 20)?;
//! let unet = |sample: &Tensor, _timestep: f32| sample.tanh();
//!
//! let noise = Tensor::ones([1, 4, 8, 8], (Kind::Float, Device::Cpu));
//! let mut latents = noise * scheduler.init_noise_sigma();
//! for index in 0..scheduler.timesteps().len() {
//!     let input = scheduler.scale_model_input(index, &latents);
//!     let output = unet(&input, scheduler.timesteps()[index]);
//!     let noise = scheduler.needs_noise(index).then(|| latents.ones_like()); // the caller's own draw
//!     latents = scheduler.step(index, &output, &latents, noise.as_ref())?;
//! }
//! # Ok::<(), scheduler::Error>(())
//! ```
//!
//! And a [`ForwardProcess`] makes noisy samples and targets for training:
//!
//! ```
//! use scheduler::{ForwardProcess, SchedulerConfig};
//! use tch::{Device, Kind, Tensor};
//!
//! let forward = ForwardProcess::new(&SchedulerConfig::default(), Device::Cpu)?;
//! let latents = Tensor::ones([2, 4, 8, 8], (Kind::BFloat16, Device::Cpu));
//! let noise = latents.zeros_like();
//! let timesteps = Tensor::from_slice(&[0i64, 999]); // one for each sample
//! let noisy = forward.add_noise(&latents, &noise, &timesteps)?;
//! let target = forward.target(&latents, &noise, &timesteps)?;
//! # assert_eq!((noisy.kind(), target.size()), (Kind::BFloat16, latents.size()));
//! # Ok::<(), scheduler::Error>(())
//! ```
//!
//! | [`SchedulerKind`] | short name | draws noise | source |
//! |---|---|---|---|
//! | `DDPMScheduler` | `ddpm` | yes | Ho et al. 2020, eq. 7 |
//! | `DDIMScheduler` | `ddim` | if `eta > 0` | Song et al. 2020, eq. 12 and 16 |
//! | `PNDMScheduler` | `pndm` | no | Liu et al. 2022, eq. 9, 12 and 13 |
//! | `DPMSolverMultistepScheduler` | `dpm-solver++` | no | Lu et al. 2022, algorithm 2 |
//! | `EulerDiscreteScheduler` | `euler` | no | Karras et al. 2022, algorithm 1 |
//! | `EulerAncestralDiscreteScheduler` | `euler-ancestral` | yes | Crowson, k-diffusion |
//!
//! diffusers has more. [`SchedulerConfig::or_stand_in`] makes of their files one for DPM-Solver++, with a note; training needs
//! the noise schedule alone, which they share.
//!
//! Arithmetic is in f32 whatever the dtype of the sample, which the result has again. Gradients flow through; wrap
//! sampling in `tch::no_grad`.
//!
//! Invariants: knows nothing of models, prompts or guidance; draws no random number (noise is always an argument), so
//! equal inputs give equal outputs.

mod build;
mod config;
mod ddim;
mod ddpm;
mod dpm_solver;
mod error;
mod euler;
mod euler_ancestral;
mod forward;
mod noise_schedule;
mod pndm;
mod prediction;
mod sigmas;
mod spacing;
mod step;
mod timesteps;

pub use config::{BetaSchedule, FinalSigmas, SchedulerConfig, VarianceType};
pub use error::Error;
pub use forward::ForwardProcess;
pub use noise_schedule::NoiseSchedule;
pub use options::{PredictionType, SchedulerKind};
pub use spacing::TimestepSpacing;
pub use step::Scheduler;
