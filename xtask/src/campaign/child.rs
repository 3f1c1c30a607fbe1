//! A process under watch: its time, its memory, its end.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A command of the tiny model takes seconds; on a machine that does much else, tens of them.
pub(super) const MOST_TIME: Duration = Duration::from_secs(180);
/// LibTorch takes 0.5 GB.
const MOST_MEMORY: u64 = 4 << 30;

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Code(i32),
    Signal(i32),
    /// It took longer than [`MOST_TIME`].
    TooLong,
    /// It took more memory than a tiny model can need.
    TooLarge,
}

#[derive(Debug)]
pub(super) struct Ended {
    pub(super) ending: Ending,
    /// What it wrote to standard error.
    pub(super) said: String,
    pub(super) time: Duration,
    /// A process of its group was still there.
    pub(super) left_behind: bool,
}

/// A process of a group of its own, which writes to `said`.
pub(super) struct Running {
    child: Child,
    said: PathBuf,
    started: Instant,
    ended: Option<Ending>,
}

impl Running {
    pub(super) fn start(command: &mut Command, said: &Path) -> io::Result<Self> {
        let stderr = File::create(said)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0).spawn()?;
        Ok(Self { child, said: said.to_owned(), started: Instant::now(), ended: None })
    }

    /// Since its start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits so long, unless it ends before; whether it is still there.
    pub(super) fn wait(&mut self, time: Duration) -> io::Result<bool> {
        let until = Instant::now() + time;
        loop {
            if !self.look()? {
                return Ok(false);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            thread::sleep(left.min(Duration::from_millis(2)));
        }
    }

    /// Whether it is still there and within its bounds.
    fn look(&mut self) -> io::Result<bool> {
        if self.ended.is_some() {
            return Ok(false);
        }
        if let Some(status) = self.child.try_wait()? {
            self.ended = Some(ending(status));
            return Ok(false);
        }
        let over = if self.elapsed() > MOST_TIME {
            Ending::TooLong
        } else if self.memory().is_some_and(|bytes| bytes > MOST_MEMORY) {
            Ending::TooLarge
        } else {
            return Ok(true);
        };
        self.signal("KILL");
        self.child.wait()?;
        self.ended = Some(over);
        Ok(false)
    }

    /// What it has in memory, in bytes.
    fn memory(&self) -> Option<u64> {
        let kilobytes: u64 = self.status("VmRSS:")?.trim_end_matches("kB").trim().parse().ok()?;
        Some(kilobytes * 1024)
    }

    /// Whether its `main` has begun: Rust's runtime ignores SIGPIPE (13) right before.
    pub(super) fn has_begun(&self) -> bool {
        let ignored = self.status("SigIgn:").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
        ignored.is_some_and(|mask| mask & 1 << 12 != 0)
    }

    fn status(&self, key: &str) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        Some(status.lines().find_map(|line| line.strip_prefix(key))?.trim().to_owned())
    }

    /// Sends a signal such as `INT` to the whole group, as a terminal does.
    pub(super) fn signal(&self, name: &str) {
        let script = format!("kill -s {name} -- -{} 2>/dev/null", self.child.id());
        // One that has ended meanwhile cannot be told.
        let _ = Command::new("sh").args(["-c", &script]).status();
    }

    /// Waits for its end.
    pub(super) fn end(mut self) -> io::Result<Ended> {
        while self.wait(Duration::from_secs(1))? {}
        let time = self.elapsed();
        let left_behind = survives(self.child.id());
        if left_behind {
            self.signal("KILL");
        }
        let said = String::from_utf8_lossy(&fs::read(&self.said)?).into_owned();
        Ok(Ended { ending: self.ended.unwrap_or(Ending::TooLong), said, time, left_behind })
    }
}

/// Runs to the end.
pub(super) fn run(command: &mut Command, said: &Path) -> io::Result<Ended> {
    Running::start(command, said)?.end()
}

/// Whether a process of this group is there a second later.
fn survives(group: u32) -> bool {
    (0..100).all(|_| {
        let there = has_members(group);
        if there {
            thread::sleep(Duration::from_millis(10));
        }
        there
    })
}

fn has_members(group: u32) -> bool {
    let is_member = |stat: &str| {
        // Behind the name, which may hold anything: state, parent, group.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.next().is_some_and(|state| state != "Z") && fields.nth(1) == Some(&group.to_string())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.any(|stat| is_member(&stat))
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, signal) => Ending::Signal(signal.unwrap_or(0)),
    }
}

impl Ended {
    /// What is wrong with a program that was not interrupted: it ends well, or by an error that its user can mend.
    pub(super) fn wrong(&self) -> Option<String> {
        let last = self.said.lines().last().unwrap_or_default();
        if self.said.contains("panicked at") || self.said.contains("frame #") {
            return Some(format!("it panicked or showed LibTorch's frames: {last}"));
        }
        if self.left_behind {
            return Some("it left a process behind".to_owned());
        }
        match self.ending {
            Ending::Code(0) => None,
            // clap's errors have a hint on further lines.
            Ending::Code(2) if self.said.lines().any(|line| line.starts_with("error: ")) => None,
            Ending::Code(2) => Some(format!("it gave no reason: {last}")),
            other => Some(format!("it ended with {other:?}: {last}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Ended {
        let said = tempfile::NamedTempFile::new().unwrap();
        run(Command::new("sh").args(["-c", text]), said.path()).unwrap()
    }

    #[test]
    fn good_and_bad_ends_are_told_apart() {
        assert!(script("exit 0").wrong().is_none());
        assert!(script("echo 'error: a reason' >&2; exit 2").wrong().is_none());
        for (text, words) in [
            ("exit 2", "no reason"),
            ("exit 1", "Code(1)"),
            ("kill -SEGV $$", "Signal(11)"),
            ("echo \"thread 'main' panicked at x\" >&2; exit 0", "panicked"),
            ("sleep 60 & exit 0", "left a process"),
        ] {
            let ended = script(text);
            assert!(ended.wrong().is_some_and(|wrong| wrong.contains(words)), "{text}: {ended:?}");
        }
    }

    #[test]
    fn a_signal_reaches_the_whole_group() {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut running = Running::start(Command::new("sh").args(["-c", "sleep 60; exit 0"]), said.path()).unwrap();
        assert!(running.wait(Duration::from_millis(50)).unwrap() && !running.has_begun());
        running.signal("TERM");
        let ended = running.end().unwrap();
        assert!(ended.ending == Ending::Signal(15) && !ended.left_behind, "{ended:?}");
    }
}
