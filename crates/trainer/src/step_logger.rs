//! What is written down of each step.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use runs::{Entry, Group, Log, Phase, Scalars};
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
    pub(crate) fn add(&mut self, number: u64, report: &StepReport, phase: &Phase) -> Result<Option<u64>> {
        let _span = tracing::trace_span!("train/log").entered();
        let peak_memory = libtorch::peak_memory(self.device).ok();
        let mut values = vec![("seconds".to_owned(), self.since.elapsed().as_secs_f64())];
        values.extend(report.losses.iter().map(|(name, loss)| (format!("{name}_loss"), *loss)));
        let rate = |group: &Group| {
            let name = if phase.trains.len() == 1 { String::new() } else { format!("_{group}") };
            (format!("learning_rate{name}"), phase.learning_rate_at(report.step - 1, *group))
        };
        values.extend(phase.trains.keys().map(rate));
        values.push(("gradient_norm".to_owned(), report.gradient_norm));
        values.extend(peak_memory.map(|bytes| ("peak_memory_bytes".to_owned(), bytes as f64)));
        let values = values.iter().map(|(name, value)| (name.as_str(), *value));
        let entry = Entry::now(number, &report.phase, values);
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
