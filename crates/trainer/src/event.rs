//! What a run tells whoever shows it.

use runs::Stage;
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
    /// A stage starts, or resumes after `done` steps.
    Stage {
        /// The stage.
        stage: Stage,
        /// Steps done earlier.
        done: u64,
        /// Steps of the stage.
        steps: u64,
    },
    /// All stages are done and the learned weights are saved; images of them follow.
    Learned,
    /// A step is done.
    Step {
        /// Its losses.
        report: StepReport,
        /// The most memory used so far in bytes, where the system tells.
        peak_memory: Option<u64>,
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
    /// All stages are done.
    Finished,
    /// It was asked to stop and has saved a checkpoint.
    Stopped,
}
