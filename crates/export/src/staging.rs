//! A folder that is there as a whole or not at all.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Fills a new folder under a temporary name beside `path`, then gives it its name.
///
/// # Errors
/// When `path` is taken, or `fill` fails; the temporary folder is removed then.
pub(crate) fn new_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let shown = path.display();
    if path.is_file() {
        bail!("{shown} is a file; choose another name for the folder");
    }
    if path.exists() && fs::read_dir(path).with_context(|| format!("cannot read {shown}"))?.next().is_some() {
        bail!("{shown} is there already and is not empty; choose another folder, or remove that one first");
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("cannot write {shown}");
    fs::create_dir_all(parent).with_context(failed)?;
    // Ordinary permissions: the process's umask still applies.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-").permissions(Permissions::from_mode(0o777));
    let temporary = builder.tempdir_in(parent).with_context(failed)?;
    fill(temporary.path())?;
    fs::rename(temporary.path(), path).with_context(failed)?;
    // There is nothing left to remove.
    let _renamed: PathBuf = temporary.keep();
    File::open(parent).and_then(|parent| parent.sync_all()).with_context(failed)
}

/// Puts the files of `from` for which `wanted` holds into the new folder `to`, hidden ones left out: weights as further
/// names of the same contents where one disk holds both, else as copies, and what people may edit always as copies.
pub(crate) fn copy_folder(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool + Copy) -> Result<()> {
    let reading = || format!("cannot read {}", from.display());
    fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
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
