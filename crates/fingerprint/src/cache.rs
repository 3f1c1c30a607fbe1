//! The cache on disk: one small file per entry, named by its key.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

/// The most entries that are kept; the oldest are removed first. A model has about ten files.
pub const MOST_ENTRIES: usize = 1000;

/// An entry: the fingerprint, and a checksum of it and of what it belongs to.
pub(crate) fn text(key: &str, sha256: &str) -> String {
    format!("{sha256} {}\n", hex::encode(Sha256::digest(format!("{key} {sha256}"))))
}

/// The fingerprint under a key; `None` where there is none, or a damaged one.
pub(crate) fn read(folder: &Path, key: &str) -> Option<String> {
    let found = fs::read_to_string(folder.join(key)).ok()?;
    let sha256 = found.split(' ').next()?;
    (found == text(key, sha256)).then(|| sha256.to_owned())
}

/// Writes an entry, complete or not at all, and removes the oldest where there are too many.
pub(crate) fn write(folder: &Path, key: &str, sha256: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(text(key, sha256).as_bytes())?;
    temporary.persist(folder.join(key)).map_err(|error| error.error)?;
    prune(folder)
}

fn prune(folder: &Path) -> io::Result<()> {
    let entries: Vec<fs::DirEntry> = fs::read_dir(folder)?.filter_map(Result::ok).collect();
    if entries.len() <= MOST_ENTRIES {
        return Ok(());
    }
    let age = |entry: &fs::DirEntry| entry.metadata().and_then(|metadata| metadata.modified()).ok();
    let mut entries: Vec<(Option<SystemTime>, PathBuf)> =
        entries.iter().map(|entry| (age(entry), entry.path())).collect();
    entries.sort();
    // Several at once, so that not every write has to.
    let surplus = entries.len() - MOST_ENTRIES * 3 / 4;
    for (_, path) in &entries[..surplus] {
        // Another process may have removed it.
        let _ = fs::remove_file(path);
    }
    Ok(())
}
