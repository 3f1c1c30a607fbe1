//! Where the time of an operation went.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use profile::{Recording, Synchronize};
use requests::Profiling;
use tch::Device;

use crate::context::Context;

/// The file in the operation's folder.
const FILE: &str = "profile.json";

/// What records, if asked for.
pub(crate) struct Profiler(Option<Recording>);

impl Profiler {
    /// Starts to record, if asked for.
    pub(crate) fn start(Profiling { profile }: Profiling, device: Device) -> Self {
        let wait: Synchronize = Box::new(move || libtorch::synchronize(device));
        // A CPU is done when a call returns.
        let wait = (device != Device::Cpu).then_some(wait);
        Self(if profile { profile::start(wait) } else { None })
    }

    /// Shows the table and writes the trace into `folder`.
    ///
    /// # Errors
    /// When the trace cannot be written.
    pub(crate) fn finish(self, folder: &Path, context: &Context<'_>) -> Result<()> {
        let Some(profile) = self.0.map(Recording::stop) else { return Ok(()) };
        let path = folder.join(FILE);
        atomic::ensure_ours(&path, "a trace of this program", is_trace)?;
        atomic::replace_file(&path, |file, _| Ok(profile.write_trace(file)?))?;
        context
            .message(format!("{profile}{} shows it in time, in chrome://tracing or ui.perfetto.dev", path.display()));
        Ok(())
    }
}

/// Whether a file begins as traces do.
fn is_trace(path: &Path) -> bool {
    let mut start = String::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_string(&mut start));
    read.is_ok() && start.contains("\"traceEvents\"")
}
