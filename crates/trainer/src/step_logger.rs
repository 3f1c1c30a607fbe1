//! What is written down of each step.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use runs::{Entry, Log, Scalars};
use tch::Device;

use crate::StepReport;

/// The run's log, for programs and for TensorBoard.
pub(crate) struct StepLogger {
    log: Log,
    scalars: Scalars,
    device: Device,
    /// When the last step was written down, or whatever came after it was done.
    since: Instant,
}

impl StepLogger {
    /// Resumes after `done` steps of the run in `folder`.
    pub(crate) fn open(folder: &Path, done: u64, device: Device) -> Result<Self> {
        let (log, scalars) = (Log::open(folder, done)?, Scalars::open(folder, done)?);
        Ok(Self { log, scalars, device, since: Instant::now() })
    }

    /// Adds step `number` of the run; returns the most memory used so far in bytes, where the system tells.
    pub(crate) fn add(&mut self, number: u64, report: &StepReport, learning_rate: f64) -> Result<Option<u64>> {
        let _span = tracing::trace_span!("train/log").entered();
        let peak_memory = libtorch::peak_memory(self.device).ok();
        let mut values = vec![
            ("diffusion_loss", report.diffusion_loss),
            ("attention_loss", report.attention_loss),
            ("learning_rate", learning_rate),
            ("seconds", self.since.elapsed().as_secs_f64()),
        ];
        values.extend(peak_memory.map(|bytes| ("peak_memory_bytes", bytes as f64)));
        let entry = Entry::now(number, report.stage.name(), values);
        self.log.append(&entry)?;
        self.scalars.append(&entry)?;
        self.since = Instant::now();
        Ok(peak_memory)
    }

    /// The next step's time begins now.
    pub(crate) fn restart_clock(&mut self) {
        self.since = Instant::now();
    }

    /// Makes sure that it is on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        let _span = tracing::trace_span!("train/log").entered();
        self.log.sync()
    }
}
