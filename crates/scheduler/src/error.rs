//! What can be wrong with a configuration or a call.

use std::path::PathBuf;

use crate::{SchedulerKind, TimestepSpacing};

/// Why a scheduler could not be built or could not step. Every message is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file could not be read.
    #[error("cannot read {}: {reason}; pass the scheduler_config.json of a model's scheduler folder", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// The configuration file is not JSON or a value in it is of the wrong type or unknown.
    #[error("{} is not a usable scheduler configuration: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: serde_json::Error,
    },
    /// A scheduler's name is none of those that exist here.
    #[error(transparent)]
    UnknownScheduler(#[from] options::UnknownName),
    /// The configuration does not say which scheduler it is for.
    #[error("the scheduler configuration has no _class_name: choose one of {}", SchedulerKind::known_names())]
    NoClassName,
    /// A key has a value that this scheduler does not have.
    #[error("{kind} does not support {key} = {value} here: use {instead}")]
    Unsupported {
        /// The scheduler.
        kind: SchedulerKind,
        /// The key of `scheduler_config.json`.
        key: &'static str,
        /// Its value.
        value: String,
        /// What to use instead.
        instead: &'static str,
    },
    /// Only DDIM has an η.
    #[error(
        "{kind} has no eta, but eta {eta} was asked for: use {} ({}), or leave eta out",
        SchedulerKind::Ddim.short_name(),
        SchedulerKind::Ddim
    )]
    NoEta {
        /// The scheduler.
        kind: SchedulerKind,
        /// What was asked for.
        eta: f64,
    },
    /// A number is out of bounds.
    #[error(transparent)]
    Range(#[from] limits::OutOfRange),
    /// The betas do not make a noise schedule.
    #[error("the noise schedule is unusable: {0}")]
    Betas(String),
    /// The number of steps is out of range.
    #[error("cannot sample in {steps} steps: use 1 to {most}")]
    Steps {
        /// Steps asked for.
        steps: usize,
        /// The number of timesteps that the model was trained with.
        most: usize,
    },
    /// Step count and spacing give timesteps that the schedule does not have.
    #[error(
        "{steps} steps with {spacing} spacing reach timestep {timestep}, but the model was trained with 0 to {last}: use \
         fewer steps, another timestep_spacing or a smaller steps_offset"
    )]
    Timestep {
        /// Steps asked for.
        steps: usize,
        /// How they are spaced.
        spacing: TimestepSpacing,
        /// The timestep out of range.
        timestep: usize,
        /// The last one in range.
        last: usize,
    },
    /// Two steps would be at the same noise level, which a multistep solver divides by.
    #[error(
        "{steps} steps with {spacing} spacing visit timestep {timestep} twice: use fewer steps or another timestep_spacing"
    )]
    RepeatedTimestep {
        /// Steps asked for.
        steps: usize,
        /// How they are spaced.
        spacing: TimestepSpacing,
        /// The timestep.
        timestep: usize,
    },
    /// A step was asked for that the scheduler does not have.
    #[error("step {index} does not exist: the scheduler has {len} steps, counted from 0")]
    NoSuchStep {
        /// The step asked for.
        index: usize,
        /// How many there are.
        len: usize,
    },
    /// A scheduler with a memory was not called in order.
    #[error("{kind} needs its steps in order from 0: step {index} was called where step {expected} is next")]
    OutOfOrder {
        /// The scheduler.
        kind: SchedulerKind,
        /// The step asked for.
        index: usize,
        /// The step that is next.
        expected: usize,
    },
    /// The step adds noise and none was given.
    #[error("step {index} needs noise: pass a standard normal tensor of the sample's shape")]
    NoNoise {
        /// The step.
        index: usize,
    },
    /// Two tensors that belong together differ in shape.
    #[error("{what} is {actual:?} but the sample is {expected:?}: pass equal shapes")]
    Shape {
        /// The tensor.
        what: &'static str,
        /// Its shape.
        actual: Vec<i64>,
        /// The sample's shape.
        expected: Vec<i64>,
    },
    /// Two tensors that belong together are on different devices.
    #[error("{what} is on {actual:?} but the sample is on {expected:?}: move it there")]
    Device {
        /// The tensor.
        what: &'static str,
        /// Its device.
        actual: tch::Device,
        /// The sample's device.
        expected: tch::Device,
    },
    /// Training timesteps of the wrong type, number or range.
    #[error("the timesteps are {actual}: pass an int64 tensor [{batch}] of values from 0 to {last}")]
    Timesteps {
        /// What they are.
        actual: String,
        /// The batch size.
        batch: i64,
        /// The last trained timestep.
        last: usize,
    },
}
