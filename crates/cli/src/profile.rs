//! `--profile`: where the time of a command went.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use clap::Args;
use profile::{Recording, Synchronize};
use serde::Serialize;
use tch::Device;

/// Whether a command says where its time went.
#[derive(Args, Debug, Clone, Copy, Serialize)]
pub(crate) struct ProfileArgs {
    /// At the end, show where the time went, and write profile.json beside the results for chrome://tracing or
    /// ui.perfetto.dev; of this process alone where a run goes on. A GPU is slower by it
    #[arg(long)]
    profile: bool,
}

/// The file in the command's folder.
const FILE: &str = "profile.json";

impl ProfileArgs {
    /// Starts to record, if asked for.
    pub(crate) fn start(self, device: Device) -> Profiler {
        let wait: Synchronize = Box::new(move || libtorch::synchronize(device));
        // A CPU is done when a call returns.
        let wait = (device != Device::Cpu).then_some(wait);
        Profiler(if self.profile { profile::start(wait) } else { None })
    }
}

/// Whether a file begins as traces do.
fn is_trace(path: &Path) -> bool {
    let mut start = String::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_string(&mut start));
    read.is_ok() && start.contains("\"traceEvents\"")
}

/// What records, if asked for.
pub(crate) struct Profiler(Option<Recording>);

impl Profiler {
    /// Shows the table and writes the trace into `folder`.
    ///
    /// # Errors
    /// When the trace cannot be written.
    pub(crate) fn finish(self, folder: &Path) -> Result<()> {
        let Some(profile) = self.0.map(Recording::stop) else { return Ok(()) };
        let path = folder.join(FILE);
        atomic::ensure_ours(&path, "a trace of this program", is_trace)?;
        atomic::replace_file(&path, |file, _| Ok(profile.write_trace(file)?))?;
        terminal::say!("{profile}{} shows it in time, in chrome://tracing or ui.perfetto.dev", path.display());
        Ok(())
    }
}
