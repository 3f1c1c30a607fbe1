//! What a download tells its caller.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use serde::Serialize;

/// An event of a download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// Which model is downloaded, and what whoever uses it is bound by. The first event.
    Licence {
        /// The model's full name.
        title: String,
        /// The licence's name.
        licence: String,
        /// Where its text is.
        url: String,
    },
    /// So much of a file is here.
    Bytes {
        /// The file's path within the model.
        file: String,
        /// In bytes.
        done: u64,
        /// In bytes, where known.
        total: Option<u64>,
    },
    /// A file is complete or given up: no more `Bytes` of it follow.
    Ended {
        /// The file's path within the model.
        file: String,
    },
    /// Where a file is from, or why it is slow in coming.
    Message {
        /// The file's path within the model.
        file: String,
        /// A part of a sentence.
        text: String,
    },
    /// Something that the user should know of a download that has succeeded.
    Note {
        /// A sentence.
        text: String,
    },
}

/// The line to be shown; of `Bytes` and `Ended` none is needed.
impl fmt::Display for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Licence { title, licence, url } => {
                write!(formatter, "{title}: {licence} ({url}). Whoever uses the files is bound by it.")
            }
            Self::Bytes { file, done, total: Some(total) } => {
                write!(formatter, "{file}: {} of {}", size(*done), size(*total))
            }
            Self::Bytes { file, done, total: None } => write!(formatter, "{file}: {}", size(*done)),
            Self::Ended { file } => write!(formatter, "{file}: ended"),
            Self::Message { file, text } => write!(formatter, "{file}: {text}"),
            Self::Note { text } => write!(formatter, "note: {text}"),
        }
    }
}

/// What a download calls with each event; [`ControlFlow::Break`] ends it, keeping what has come.
pub type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// A download was ended by its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted; what has come is kept, and the same command resumes")]
pub struct Stopped;

/// Tells of one file; to be used from any thread.
pub(crate) struct Reporter<'a> {
    pub(crate) file: &'a str,
    pub(crate) events: Sender<Progress>,
    pub(crate) stopped: &'a AtomicBool,
}

impl Reporter<'_> {
    pub(crate) fn say(&self, text: impl Into<String>) {
        self.send(Progress::Message { file: self.file.to_owned(), text: text.into() });
    }

    pub(crate) fn at(&self, done: u64, total: Option<u64>) {
        self.send(Progress::Bytes { file: self.file.to_owned(), done, total });
    }

    fn send(&self, event: Progress) {
        // Nobody listens any more when the download has ended otherwise.
        let _ = self.events.send(event);
    }

    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.stopped.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
    }

    /// Waits, but not when it has been stopped.
    pub(crate) fn sleep(&self, mut wait: Duration) -> Result<(), Stopped> {
        const STEP: Duration = Duration::from_millis(100);
        while !wait.is_zero() {
            self.check()?;
            std::thread::sleep(wait.min(STEP));
            wait = wait.saturating_sub(STEP);
        }
        self.check()
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        self.send(Progress::Ended { file: self.file.to_owned() });
    }
}

/// Bytes as a person reads them, in decimal units.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
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
