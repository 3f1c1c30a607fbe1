//! What a run tells whoever shows it.

use runs::{Ending, Measurement};
use serde::{Deserialize, Serialize};

use crate::StepReport;

/// What happens in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Class images are being generated for prior preservation.
    Prior {
        /// Images that are there.
        done: u64,
        /// Images in all.
        images: u64,
    },
    /// A phase starts, or resumes after `done` steps.
    Phase {
        /// Its name.
        phase: String,
        /// Its number, from 1.
        number: usize,
        /// How many phases there are.
        phases: usize,
        /// Steps done earlier.
        done: u64,
        /// Steps of the phase.
        steps: u64,
    },
    /// All phases are done and the learned weights are saved; images of them follow.
    Learned,
    /// A step is done.
    Step {
        /// Its losses.
        report: StepReport,
        /// The most memory used so far in bytes, where the system tells.
        peak_memory: Option<u64>,
    },
    /// The model was measured by `stop`.
    Measured {
        /// The phase's name.
        phase: String,
        /// The steps that are done, what is gained over the base model, and the time that it took.
        measurement: Measurement,
    },
    /// The last phase was ended by `stop`, and one of its steps was taken.
    Ended {
        /// The phase's name.
        phase: String,
        /// The most steps that it could have had.
        steps: u64,
        /// Why, after which step, and which step was taken.
        ending: Ending,
    },
    /// Something that the user should know, and that is no reason to stop.
    Note {
        /// One sentence.
        text: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All phases are done.
    Finished,
    /// It was asked to stop and has saved a checkpoint.
    Stopped,
}
