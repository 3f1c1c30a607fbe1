//! The files of an exported folder.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Makes sure that a folder to write to is not there, or empty.
///
/// # Errors
/// Says what is there.
pub fn ensure_new_folder(path: &Path) -> Result<()> {
    let shown = path.display();
    if path.is_file() {
        bail!("{shown} is a file; choose another name for the folder");
    }
    if path.exists() && fs::read_dir(path).with_context(|| format!("cannot read {shown}"))?.next().is_some() {
        bail!("{shown} exists already and is not empty; choose another folder, or remove that one first");
    }
    Ok(())
}

/// [`atomic::new_folder`] where the user has named the folder.
///
/// # Errors
/// As that; and when `path` is taken, before anything is done.
pub(crate) fn new_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    ensure_new_folder(path)?;
    atomic::new_folder(path, fill)
}

/// Copies the files of `from` for which `keep` holds into the new folder `to`, hidden ones excepted.
pub(crate) fn copy_folder(from: &Path, to: &Path, keep: impl Fn(&str) -> bool + Copy) -> Result<()> {
    let reading = || format!("cannot read {}", from.display());
    new_subfolder(to)?;
    for entry in fs::read_dir(from).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let target = to.join(entry.file_name());
        if name.starts_with('.') || !keep(&name) {
            continue;
        }
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target, keep)?;
        } else {
            copy_file(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// A folder that must not be there yet.
pub(crate) fn new_subfolder(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Copies one file, so that changes of the copy do not reach the original. Where the file system can share contents
/// until one of them is written to (btrfs, XFS), the copy takes neither time nor space.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> Result<()> {
        // The file itself: downloads are often links into a cache, which may be emptied.
        let file = from.canonicalize()?;
        ensure!(file.is_file(), "it is not a regular file");
        fs::copy(&file, to)?;
        Ok(File::open(to)?.sync_all()?)
    };
    copy().with_context(|| format!("cannot copy {}", from.display()))
}

/// Whether a file's name is that of weights, in whatever format, or of their index.
pub(crate) fn is_weights(name: &str) -> bool {
    const ENDINGS: [&str; 8] = ["safetensors", "bin", "ckpt", "pt", "pth", "msgpack", "h5", "onnx"];
    // An index says what it is of: `model.safetensors.index.json`, or `...index.fp16.json` of a variant.
    let of = name.split_once(".index.").filter(|_| name.ends_with(".json")).map_or(name, |(of, _)| of);
    of.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_told_by_how_their_names_end() {
        let weights = "model.safetensors model.fp16.safetensors pytorch_model-00001-of-00002.bin model.ckpt flax.msgpack \
                       model.safetensors.index.json model.safetensors.index.fp16.json pytorch_model.bin.index.json";
        let others = "config.json a.pt.json scheduler.binary.json merges.txt safetensors tokenizer.index.json README.md \
                      vocab.bin.txt";
        assert!(weights.split_whitespace().all(is_weights));
        assert!(!others.split_whitespace().any(is_weights));
    }
}
