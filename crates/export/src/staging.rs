//! A folder that is there as a whole or not at all.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// [`atomic::new_folder`] where the user has named the folder.
///
/// # Errors
/// As that; and when `path` is taken, before anything is done.
pub(crate) fn new_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let shown = path.display();
    if path.is_file() {
        bail!("{shown} is a file; choose another name for the folder");
    }
    if path.exists() && fs::read_dir(path).with_context(|| format!("cannot read {shown}"))?.next().is_some() {
        bail!("{shown} is there already and is not empty; choose another folder, or remove that one first");
    }
    atomic::new_folder(path, fill)
}

/// Puts the files of `from` for which `wanted` holds into the new folder `to`, hidden ones left out: weights as further
/// names of the same contents where one disk holds both, else as copies, and what people may edit always as copies.
pub(crate) fn copy_folder(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool + Copy) -> Result<()> {
    let reading = || format!("cannot read {}", from.display());
    new_subfolder(to)?;
    for entry in fs::read_dir(from).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let target = to.join(entry.file_name());
        if name.starts_with('.') || !wanted(&name) {
            continue;
        }
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target, wanted)?;
        } else {
            copy_file(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// A folder that must not be there yet.
pub(crate) fn new_subfolder(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))
}

/// One file, as [`copy_folder`] does.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    // The file itself: downloads are often links into a cache, which may be emptied.
    let copy = || {
        let from = from.canonicalize()?;
        if is_weights(&to.to_string_lossy()) && fs::hard_link(&from, to).is_ok() {
            return Ok(());
        }
        fs::copy(&from, to)?;
        File::open(to)?.sync_all()
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Whether a file's name is that of weights, in whatever format, or of their index.
pub(crate) fn is_weights(name: &str) -> bool {
    const MARKS: [&str; 8] = [".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx"];
    MARKS.iter().any(|mark| name.contains(mark))
}
