//! Programs that xtask starts and waits for: a signal for xtask is one for them.
//!
//! Each has a process group of its own, so that a signal, also Ctrl-C in a terminal, reaches it once, from here. xtask
//! ends when they have ended; without one it ends at once.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Mutex, PoisonError};
use std::{io, process, thread};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn running() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands signals on from now on, in a thread of its own.
pub(crate) fn hand_signals_on() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let hand_on = move || {
        for number in signals.forever() {
            let children = running();
            if children.is_empty() {
                process::exit(128 + number);
            }
            let signal = Signal::from_named_raw(number).unwrap_or(Signal::TERM);
            for group in children.iter() {
                // It may have ended just now.
                let _ = kill_process_group(*group, signal);
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(hand_on).map(|_| ())
}

/// A child that signals are handed to as long as this lives.
pub(crate) struct Running {
    pub(crate) child: Child,
    group: Option<Pid>,
}

impl Running {
    /// As [`Command::spawn`].
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        // Locked meanwhile: a signal finds all children or none.
        let mut running = running();
        let child = command.process_group(0).spawn()?;
        let group = Pid::from_raw(child.id() as i32);
        running.extend(group);
        Ok(Self { child, group })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        running().retain(|group| Some(*group) != self.group);
    }
}

/// As [`Command::status`].
pub(crate) fn status(command: &mut Command) -> io::Result<ExitStatus> {
    Running::start(command)?.child.wait()
}

/// As [`Command::output`]; standard output is captured, standard error where `command` says so.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    let mut running = Running::start(command.stdout(process::Stdio::piped()))?;
    let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
    // Both at once: a child waits for a reader of either.
    let read = |from: Option<Box<dyn io::Read + Send>>| {
        let mut bytes = Vec::new();
        from.map_or(Ok(0), |mut from| from.read_to_end(&mut bytes)).map(|_| bytes)
    };
    let errors = thread::spawn(move || read(stderr.map(|stderr| Box::new(stderr) as _)));
    let stdout = read(stdout.map(|stdout| Box::new(stdout) as _))?;
    let stderr = errors.join().unwrap_or_else(|_| Ok(Vec::new()))?;
    Ok(Output { status: running.child.wait()?, stdout, stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_come_whole() {
        let script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; exit 3";
        let output = output(Command::new("sh").args(["-c", script]).stderr(process::Stdio::piped())).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len(), output.status.code()), (300_000, 300_000, Some(3)));
        assert!(running().is_empty());
    }
}
