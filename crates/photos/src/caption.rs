//! The text beside a photo.

use std::path::{Path, PathBuf};

/// Longer files are none of captions.
const MAX_BYTES: u64 = 1 << 20;

/// A photo's caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// Its file.
    pub path: PathBuf,
    /// Its first line that is not empty, with single spaces between words.
    pub text: String,
    /// Whether more lines follow, which nobody reads.
    pub has_more: bool,
}

impl Caption {
    /// Reads a file of UTF-8, which may begin with a byte-order mark.
    ///
    /// # Errors
    /// What follows the file's name in a sentence.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let bytes = limits::read_at_most(path, MAX_BYTES).map_err(|error| format!("cannot be read: {error}"))?;
        let no_text = || "is no UTF-8 text: save it as UTF-8".to_owned();
        let all = String::from_utf8(bytes).map_err(|_| no_text())?;
        let all = all.strip_prefix('\u{feff}').unwrap_or(&all);
        let lines = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut lines = lines.filter(|line| !line.is_empty());
        let text = lines.next().ok_or("is empty: write the photo's caption into it")?;
        // UTF-16 is zeros between letters.
        if text.contains(char::is_control) {
            return Err(no_text());
        }
        Ok(Self { path: path.to_owned(), text, has_more: lines.next().is_some() })
    }
}
