//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Steps done out of a total, with rate and remaining time.
pub(crate) struct Progress {
    task: String,
    total: u64,
    /// Steps that were done before.
    before: u64,
    done: u64,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts where `done` of `total` steps were done earlier; the rate counts the new ones only.
    pub(crate) fn new(task: &str, done: u64, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {per_sec} eta {eta} {msg}");
            let bar = ProgressBar::new(total).with_prefix(task.to_owned()).with_position(done);
            bar.reset_eta();
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let now = Instant::now();
        Self { task: task.to_owned(), total, before: done, done, started: now, last_line: now, bar }
    }

    /// Whether `done` steps of `task` continue what is shown.
    pub(crate) fn is_of(&self, task: &str, done: u64) -> bool {
        self.task == task && done >= self.done
    }

    /// Counts on to `done` steps, of another `total` if that has changed; `note` is shown beside them.
    pub(crate) fn reach(&mut self, done: u64, total: Option<u64>, note: &str) {
        self.total = total.unwrap_or(self.total);
        let new = done > self.before;
        self.done = done;
        match &self.bar {
            Some(bar) => {
                bar.set_length(self.total);
                bar.set_message(note.to_owned());
                bar.set_position(done);
            }
            None if new && self.done == self.total || self.last_line.elapsed() >= LINE_INTERVAL => {
                self.last_line = Instant::now();
                terminal::say!("{}", self.line(self.started.elapsed(), note));
            }
            None => {}
        }
    }

    /// Writes something else meanwhile.
    pub(crate) fn suspend(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn line(&self, elapsed: Duration, note: &str) -> String {
        let rate = (self.done - self.before) as f64 / elapsed.as_secs_f64().max(1e-9);
        let left = (self.total - self.done.min(self.total)) as f64 / rate.max(1e-9);
        format!("{} {}/{} {rate:.2}/s eta {left:.0}s {note}", self.task, self.done, self.total).trim_end().to_owned()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_remaining_time() {
        let mut progress = Progress::new("sampling", 0, 50);
        progress.done = 20;
        assert_eq!(progress.line(Duration::from_secs(10), ""), "sampling 20/50 2.00/s eta 15s");
    }
}
