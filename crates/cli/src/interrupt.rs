//! Ctrl-C and SIGTERM while something long is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// The first signal asks for a stop at the next good moment, another one stops at once; so does the first when there is
/// no such moment any more.
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    waits: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on; once in a process.
    pub(crate) fn watch() -> Result<Self> {
        let (asked, waits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let (ask, wait) = (Arc::clone(&asked), Arc::clone(&waits));
        ctrlc::set_handler(move || {
            if !ask.swap(true, Ordering::Relaxed) && wait.load(Ordering::Relaxed) {
                terminal::say!("\nstopping after this step and a checkpoint; once more stops at once");
            } else {
                // What is on the disk is whole, as always.
                std::process::exit(130);
            }
        })?;
        Ok(Self { asked, waits })
    }

    /// Whether somebody asked for a stop.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// There are no more steps after which it could stop.
    pub(crate) fn stop_at_once(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }
}
