//! Whether a path may be written to.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Checks that there is nothing at `path`.
///
/// # Errors
/// When there is something, even a symbolic link to nothing.
pub fn ensure_new(path: &Path) -> Result<()> {
    ensure!(
        fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound),
        "cannot write {}: it exists already; remove it, or name another file",
        path.display()
    );
    Ok(())
}

/// Checks that there is nothing at `path`, or a regular file that this program has written: one for which `ours` holds.
/// `what` names such a file in the message: "a report of this program".
///
/// # Errors
/// When something else is there.
pub fn ensure_ours(path: &Path, what: &str, ours: impl FnOnce(&Path) -> bool) -> Result<()> {
    ensure!(
        !ensure_regular(path)? || ours(path),
        "cannot write {}: it exists and is not {what}; remove it, or name another file",
        path.display()
    );
    Ok(())
}

/// Checks that there is nothing at `path`, or a regular file; returns whether there is one.
pub(crate) fn ensure_regular(path: &Path) -> Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
    };
    let what = match found {
        found if found.is_file() => return Ok(true),
        found if found.is_dir() => "a folder",
        found if found.is_symlink() => "a symbolic link",
        found if found.is_fifo() => "a named pipe",
        found if found.is_socket() => "a socket",
        _ => "a device",
    };
    bail!("cannot write {}: it is {what}, and only regular files are written; name another file", path.display())
}
