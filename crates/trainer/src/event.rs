//! What a run tells.

use runs::Stage;

use crate::StepReport;

/// What happens in a run, for whoever shows it.
#[derive(Debug)]
pub enum Event<'a> {
    /// Pictures of the category are being drawn for prior preservation.
    Prior {
        /// Pictures that are there.
        done: u64,
        /// Pictures in all.
        pictures: u64,
    },
    /// A stage begins, or goes on after `done` steps.
    Stage {
        /// The stage.
        stage: Stage,
        /// Steps done earlier.
        done: u64,
        /// Steps of the stage.
        steps: u64,
    },
    /// All stages are done, and what was learned is written; images of it follow.
    Learned,
    /// A step is done.
    Step {
        /// Its losses.
        report: &'a StepReport,
        /// The most memory used so far in bytes, where the system tells.
        peak_memory: Option<u64>,
    },
    /// Something that the user should know, and that is no reason to stop.
    Note {
        /// One sentence.
        text: &'a str,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All stages are done.
    Finished,
    /// It was asked to stop and has written a checkpoint.
    Stopped,
}
