//! SIGINT (Ctrl-C), SIGTERM and SIGHUP, and how the process ends.
//!
//! A first signal ends a command that keeps its state on the disk as it goes at once, and with [`TRY_AGAIN`]; training defers
//! it to the end of a step and a checkpoint ([`defer`]). A second one ends the process whatever it is doing.
//!
//! Invariant: the process is left by `_exit`, never by `exit`: C++'s destructors would run under other threads of LibTorch.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code of an interrupted command: what it has done is kept, and the same command goes on (EX_TEMPFAIL of sysexits.h).
pub(crate) const TRY_AGAIN: i32 = 75;
/// Added to the number of a signal that ends the process at once, as shells do.
const KILLED: i32 = 128;

static ASKED: AtomicBool = AtomicBool::new(false);
static DEFERRED: AtomicBool = AtomicBool::new(false);

/// A command has ended early because it was asked to; what it says is how to go on.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; {0}")]
pub(crate) struct Interrupted(pub(crate) String);

/// Whether an error is, or was caused by, an [`Interrupted`].
pub(crate) fn is_interruption(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error>::is::<Interrupted>)
}

/// Handles signals from now on, in a thread of its own.
///
/// # Errors
/// When the system allows no handler.
pub(crate) fn watch() -> Result<()> {
    let mut handled = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        handled.push(SIGHUP);
    }
    let mut signals = Signals::new(handled).context("cannot handle signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || signals.forever().for_each(on_signal))?;
    Ok(())
}

fn on_signal(signal: i32) {
    if ASKED.swap(true, Ordering::SeqCst) {
        leave(KILLED + signal);
    }
    if DEFERRED.load(Ordering::SeqCst) {
        say("\nstopping after this step and a checkpoint; a second signal stops at once");
    } else {
        say("\ninterrupted; what was finished is kept");
        leave(TRY_AGAIN);
    }
}

/// Says something without waiting for a terminal that has stopped reading: the next signal must find this thread free.
fn say(text: &'static str) {
    let (said, wait) = mpsc::channel();
    let speak = move || {
        terminal::say!("{text}");
        let _ = said.send(());
    };
    if thread::Builder::new().spawn(speak).is_ok() {
        let _ = wait.recv_timeout(Duration::from_millis(100));
    }
}

/// Whether whoever started the program has it ignore a signal, as nohup does with SIGHUP.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}

/// Ends the process at once. What is on the disk is whole, as always; what is not yet goes.
pub(crate) fn leave(code: i32) -> ! {
    atomic::discard_unfinished();
    signal_hook::low_level::exit(code)
}

/// Ends the process after the command: what it has written to standard output goes out first.
pub(crate) fn finish(code: i32) -> ! {
    let _ = std::io::stdout().flush();
    leave(code)
}

/// As long as it lives, a first signal does not end the process.
#[must_use]
pub(crate) struct Deferral(());

/// Defers a first signal until the command has saved its state.
pub(crate) fn defer() -> Deferral {
    DEFERRED.store(true, Ordering::SeqCst);
    Deferral(())
}

/// Whether there was a signal, which a [`Deferral`] has kept from ending the process.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

impl Drop for Deferral {
    fn drop(&mut self) {
        DEFERRED.store(false, Ordering::SeqCst);
    }
}
