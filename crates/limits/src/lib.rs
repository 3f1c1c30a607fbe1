//! Bounds on numbers that users and files give, and on the size of files that are read.
//!
//! ```
//! let error = limits::within("layers", 1_u64 << 63, 1..=1000, "each layer is built before the next").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "layers is 9223372036854775808, but must be from 1 to 1000: each layer is built before the next"
//! );
//! assert!(limits::read(std::path::Path::new("/dev/zero")).is_err());
//! ```
//!
//! Each configuration states its own bounds, beside its keys and with their reasons; this crate has the common form of the message.
//!
//! Invariant: a number is refused before anything is allocated or computed with it, and a file before it is read.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::Path;

/// A number that is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}, but must be from {least} to {most}: {reason}")]
pub struct OutOfRange {
    /// The key of the configuration, or the flag.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The least value that it may have.
    pub least: String,
    /// The largest value that it may have.
    pub most: String,
    /// The reason for the bounds.
    pub reason: String,
}

/// Refuses a `value` that is not in `range`, as NaN is in none.
///
/// # Errors
/// Names the key, the value, the bounds and their `reason`.
pub fn within<T: PartialOrd + Display + Copy>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
    reason: &str,
) -> Result<(), OutOfRange> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(OutOfRange {
        key: key.to_owned(),
        value: value.to_string(),
        least: range.start().to_string(),
        most: range.end().to_string(),
        reason: reason.to_owned(),
    })
}

/// The most bytes of a configuration, a prompt set or a vocabulary; CLIP's tokenizer.json, the largest, has 2 MB.
pub const TEXT_BYTES: u64 = 64 << 20;

/// Reads a file of at most [`TEXT_BYTES`].
///
/// # Errors
/// As [`read_at_most`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, TEXT_BYTES)
}

/// Reads a text of at most [`TEXT_BYTES`].
///
/// # Errors
/// As [`read_at_most`], or when it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Opens a regular file to read.
///
/// # Errors
/// When it is anything else: a device may be endless, and a pipe may wait forever. Otherwise the system's own error.
pub fn open(path: &Path) -> io::Result<File> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a folder" } else { "a device or a pipe" };
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {what}, not a regular file")));
    }
    File::open(path)
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// When it is larger, and as [`open`].
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    // A file that grows, or that does not tell its size, as those in /proc, is still not read to its end.
    if size <= most {
        file.take(most + 1).read_to_end(&mut bytes)?;
    }
    let length = size.max(bytes.len() as u64);
    if length > most {
        let (megabytes, most) = (length.div_ceil(1 << 20), most >> 20);
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it has {megabytes} MiB, more than the {most} MiB that are read"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn nan_is_in_no_range() {
        assert!(within("x", f64::NAN, 0.0..=f64::INFINITY, "").is_err());
        assert!(within("x", 1.0, 0.0..=1.0, "").is_ok());
        let error = within("steps", -1, 1..=10, "why").unwrap_err().to_string();
        assert_eq!(error, "steps is -1, but must be from 1 to 10: why");
    }

    #[test]
    fn endless_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [Path::new("/dev/zero"), Path::new("/dev/full"), &pipe] {
            let error = read(path).unwrap_err().to_string();
            assert_eq!(error, "it is a device or a pipe, not a regular file");
        }
        assert_eq!(read(folder.path()).unwrap_err().to_string(), "it is a folder, not a regular file");
        let sparse = folder.path().join("sparse");
        File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
        let error = read(&sparse).unwrap_err().to_string();
        assert_eq!(error, "it has 1048576 MiB, more than the 64 MiB that are read");
        // Larger than it says, which is 0.
        assert!(read_at_most(Path::new("/proc/self/maps"), 10).is_err());
        assert!(!read(Path::new("/proc/self/maps")).unwrap().is_empty());
        assert_eq!(read(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn a_file_is_read_completely_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..200), most in 0_u64..200) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            match read_at_most(file.path(), most) {
                Ok(read) => prop_assert!(read == bytes && bytes.len() as u64 <= most),
                Err(error) => prop_assert!(bytes.len() as u64 > most && error.kind() == ErrorKind::FileTooLarge),
            }
        }
    }
}
