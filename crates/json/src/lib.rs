//! Reading JSON files: byte-order marks, bounds, and messages that name the file and the key.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("sizes.json");
//! std::fs::write(&path, "\u{feff}{\"width\": 64}")?;
//! let sizes: std::collections::BTreeMap<String, u32> = json::read(&path, "a list of sizes")?;
//! assert_eq!(sizes["width"], 64);
//! # anyhow::Ok(())
//! ```
//!
//! Invariants: a byte-order mark, which editors on Windows put in front of UTF-8, is not an error; a message names the file
//! and, where there is one, the key; every read is bounded. Knows nothing of what is in a file.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// An error in a JSON text, with its key and place.
pub type Error = serde_path_to_error::Error<serde_json::Error>;

/// The byte-order mark.
const MARK: char = '\u{feff}';
/// The same in UTF-16, little-endian and big-endian, which Windows PowerShell writes by default.
const UTF_16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// Reads `path`; `what` names its contents in messages ("a prompt set").
///
/// # Errors
/// When the file cannot be read or does not fit the type; names the file, and the key or value.
pub fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = text(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not {what}", path.display()))
}

/// The text of a file without its byte-order mark, if it has one.
///
/// # Errors
/// The system's error, or that the file is not UTF-8.
pub fn text(path: &Path) -> io::Result<String> {
    let bytes = limits::read(path)?;
    let wrong = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason);
    if UTF_16.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(wrong("it is UTF-16 text; save it as UTF-8"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8 text; save it as such"))?;
    if text.starts_with(MARK) {
        text.drain(..MARK.len_utf8());
    }
    Ok(text)
}

/// Parses a complete JSON text.
///
/// # Errors
/// The key or value that does not fit.
pub fn parse<T: DeserializeOwned>(text: impl AsRef<[u8]>) -> Result<T, Error> {
    let text = text.as_ref();
    let mut mark = [0; MARK.len_utf8()];
    let text = text.strip_prefix(MARK.encode_utf8(&mut mark).as_bytes()).unwrap_or(text);
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json)?;
    let nowhere = serde_path_to_error::Track::new().path();
    json.end().map_err(|error| Error::new(nowhere, error))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    type Sizes = BTreeMap<String, Vec<u32>>;

    fn outcome(bytes: &[u8]) -> Result<Sizes> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sizes.json");
        fs::write(&path, bytes).unwrap();
        read(&path, "a list of sizes")
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let expected = Sizes::from([("a".to_owned(), vec![1, 2])]);
        assert_eq!(outcome(b"{\"a\": [1, 2]}\n").unwrap(), expected);
        assert_eq!(outcome(b"\xef\xbb\xbf{\"a\": [1, 2]}").unwrap(), expected);
        assert_eq!(parse::<Sizes>("\u{feff}{\"a\": [1, 2]}").unwrap(), expected);
    }

    #[test]
    fn an_error_names_its_file_and_key() {
        for (bytes, words) in [
            (&b"{\"a\": [1, \"x\"]}"[..], &["is not a list of sizes: a[1]: invalid type: string \"x\"", "line 1"][..]),
            (b"{} {}", &["is not a list of sizes", "trailing characters"]),
            (b"", &["is not a list of sizes", "EOF"]),
            (b"\xff\xfe{\0}\0", &["cannot read", "UTF-16", "save it as UTF-8"]),
            (b"{\"\xe4\": []}", &["cannot read", "not UTF-8"]),
        ] {
            let message = format!("{:#}", outcome(bytes).unwrap_err());
            assert!(message.contains("sizes.json"), "{message}");
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
        let message = format!("{:#}", read::<Sizes>(Path::new("no/such.json"), "a list").unwrap_err());
        assert!(message.starts_with("cannot read no/such.json: "), "{message}");
    }
}
