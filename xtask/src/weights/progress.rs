//! How far a fetch is: a bar for each file on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Bytes as a person reads them, in decimal units.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// The display of all files of a fetch; to be used from several threads.
pub(super) struct Progress {
    bars: Option<MultiProgress>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { bars: stderr().is_terminal().then(MultiProgress::new) }
    }

    /// A line of its own.
    pub(super) fn say(&self, line: &str) {
        match &self.bars {
            // Above the bars; that a line cannot be shown is no reason to stop.
            Some(bars) => drop(bars.println(line)),
            None => terminal::say!("{line}"),
        }
    }

    /// The display of one file, of `total` bytes where that is known.
    pub(super) fn file(&self, path: &str, total: Option<u64>) -> FileProgress<'_> {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(total.map_or_else(ProgressBar::no_length, ProgressBar::new));
            let template = "{prefix:40!} {wide_bar} {percent:>3} % {decimal_bytes_per_sec:>11} {eta:>4}";
            // A fixed template cannot fail; were it to, the default style would do.
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.with_prefix(path.to_owned())
        });
        FileProgress {
            all: self,
            path: path.to_owned(),
            bar,
            total: AtomicU64::new(total.unwrap_or(0)),
            told: AtomicU64::new(0),
        }
    }
}

/// The display of one file.
pub(super) struct FileProgress<'a> {
    all: &'a Progress,
    path: String,
    bar: Option<ProgressBar>,
    total: AtomicU64,
    /// The last tenth that a plain line told.
    told: AtomicU64,
}

impl FileProgress<'_> {
    pub(super) fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// `done` bytes are there.
    pub(super) fn at(&self, done: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(done);
        }
        let total = self.total.load(Ordering::Relaxed);
        if total < 100_000_000 {
            return;
        }
        let tenth = 10 * done / total;
        if tenth != self.told.swap(tenth, Ordering::Relaxed) && (1..10).contains(&tenth) {
            self.all.say(&format!("{}: {}0 % of {}", self.path, tenth, size(total)));
        }
    }

    pub(super) fn say(&self, what: &str) {
        self.all.say(&format!("{}: {what}", self.path));
    }
}

impl Drop for FileProgress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_decimal() {
        let sizes = [0, 999, 1_000, 524_619, 334_643_276, 3_463_726_498].map(super::size);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "524.6 kB", "334.6 MB", "3.46 GB"]);
    }
}
