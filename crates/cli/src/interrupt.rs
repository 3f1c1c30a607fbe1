//! SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGUSR1, and how the process ends.
//!
//! A first signal ends a command that keeps its state on the disk as it goes at once, and with [`TRY_AGAIN`]; training defers
//! it to the end of a step and a checkpoint ([`Stop::ask_deferred`]). A second one ends the process whatever it is doing.
//! SIGUSR1 asks as a first one does, however often and beside whatever else: batch files of Slurm pass on by it what they are told,
//! without knowing whether this process was told as well.
//!
//! Invariant: the process is left by `_exit`, never by `exit`: C++'s destructors would run under other threads of LibTorch.

use std::fs;
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use operations::Stop;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// The exit code of an interrupted command: what it has done is kept, and the same command continues it (EX_TEMPFAIL of sysexits.h).
pub(crate) const TRY_AGAIN: i32 = 75;
/// Added to the number of a signal that ends the process at once, as shells do.
const KILLED: i32 = 128;

/// Handles signals from now on, in a thread of its own.
///
/// # Errors
/// When the system allows no handler.
pub(crate) fn watch(stop: Stop) -> Result<()> {
    let mut handled = vec![SIGINT, SIGTERM, SIGUSR1];
    if !is_ignored(SIGHUP) {
        handled.push(SIGHUP);
    }
    let mut signals = Signals::new(handled).context("cannot handle signals")?;
    let hear = move || {
        let mut heard = false;
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                if !stop.asked() {
                    on_first(&stop);
                }
                continue;
            }
            if std::mem::replace(&mut heard, true) {
                leave(KILLED + signal);
            }
            on_first(&stop);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(hear)?;
    Ok(())
}

fn on_first(stop: &Stop) {
    if stop.ask_deferred() {
        say("\nstopping after this step and a checkpoint; a second signal stops at once");
    } else {
        say("\ninterrupted; what was finished is kept");
        leave(TRY_AGAIN);
    }
}

/// Ends the process because its work is another's.
pub(crate) fn lose() {
    say("\nthis process was away for too long, and another may be at its work; what was finished is kept");
    leave(TRY_AGAIN);
}

/// Says something without waiting for a terminal that has stopped reading: the next signal must find this thread free.
fn say(text: &'static str) {
    briefly(Duration::from_millis(100), move || terminal::say!("{text}"));
}

/// Does something, and no longer waits for it after some time.
fn briefly(most: Duration, action: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let act = move || {
        action();
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(act).is_ok() {
        let _ = wait.recv_timeout(most);
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
    // Others need not wait for missed heartbeats; a file system that hangs keeps nobody here.
    briefly(Duration::from_secs(2), lease::release_all);
    atomic::discard_unfinished();
    signal_hook::low_level::exit(code)
}

/// Ends the process after the command: what it has written to standard output goes out first.
pub(crate) fn finish(code: i32) -> ! {
    let _ = std::io::stdout().flush();
    leave(code)
}
