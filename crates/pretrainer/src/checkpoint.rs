//! What a component's training needs to go on: a folder that is complete or absent.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) const WEIGHTS: &str = "weights.safetensors";
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
pub(crate) const EMA: &str = "ema.safetensors";

/// The steps done and the folder of the checkpoint that is furthest on, if there is any. Its name is the number of steps.
pub(crate) fn latest(parent: &Path) -> Option<(u64, PathBuf)> {
    let entries = fs::read_dir(parent).ok()?.filter_map(Result::ok);
    let numbered = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    numbered.max()
}

/// Writes the checkpoint of `step` by means of `contents`, then removes the ones before.
pub(crate) fn write(parent: &Path, step: u64, contents: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = parent.join(format!("{step:07}"));
    let failed = || format!("cannot write the checkpoint {}", path.display());
    if path.exists() {
        return Ok(());
    }
    atomic::new_folder(&path, contents).with_context(failed)?;
    for entry in fs::read_dir(parent).with_context(failed)?.filter_map(Result::ok) {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        if number.is_some_and(|number| number < step) {
            fs::remove_dir_all(entry.path()).with_context(failed)?;
        }
    }
    Ok(())
}
