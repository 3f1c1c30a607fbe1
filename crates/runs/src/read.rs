//! Records that may be absent, but not damaged.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads the JSON file at `path`, which is `what`, if it is there.
///
/// # Errors
/// When it cannot be read or is something else; names the file, and the key or value that does not fit.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Option<T>> {
    match path.try_exists() {
        Ok(false) => Ok(None),
        _ => json::read(path, what).map(Some),
    }
}

/// Writes a record as JSON.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(record)?;
    text.push('\n');
    atomic::write(path, text)
}

/// What a folder holds, sorted by name; nothing if it does not exist.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    let listing = listing.with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = listing.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}
