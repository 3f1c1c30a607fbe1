//! The folder in which the parts are trained: `PART/` with its training, or with the weights to start from.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use runs::{CheckpointFolder, layout};

use crate::Part;

/// Files of which a folder for the parts has at least one when any part has started.
pub const MADE: [&str; 6] = [
    "vae/log.jsonl",
    "clip/log.jsonl",
    "unet/log.jsonl",
    "vae/start.safetensors",
    "clip/start.safetensors",
    "unet/start.safetensors",
];

/// In a part's folder, the weights that it started from.
pub(crate) const START: &str = "start.safetensors";
/// The latents' scale beside the VAE's weights.
pub(crate) const SCALING_FACTOR: &str = "vae/scaling_factor.json";
/// The same within the VAE's folder.
pub(crate) const SCALING_FACTOR_FILE: &str = "scaling_factor.json";
/// In a checkpoint.
pub(crate) const WEIGHTS: &str = "weights.safetensors";
/// In a checkpoint.
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
/// In a checkpoint.
pub(crate) const EMA: &str = "ema.safetensors";

/// Where a part's folder keeps the weights that it starts from.
pub(crate) fn start_weights(run: &Path, part: Part) -> PathBuf {
    run.join(part.name()).join(START)
}

/// Whether a part's folder has a training of its own, beside the weights to start from.
pub(crate) fn holds_training(folder: &Path) -> bool {
    folder.join("config.json").exists()
}

/// The averages at the end of a training.
pub(crate) fn final_weights(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

/// The weights of a part that is not trained any more: those at the end of its training, or those to start from where it
/// has none.
pub(crate) fn finished_weights(run: &Path, part: Part) -> Result<PathBuf> {
    let folder = run.join(part.name());
    let (last, start) = (final_weights(&folder), start_weights(run, part));
    if last.exists() {
        return Ok(last);
    }
    ensure!(start.exists() && !holds_training(&folder), "{} has no finished part {part}", run.display());
    Ok(start)
}

/// The best weights that a part has so far: finished, averaged in the last checkpoint, or those it started from.
pub(crate) fn best_weights(run: &Path, part: Part) -> Result<PathBuf> {
    if let Ok(finished) = finished_weights(run, part) {
        return Ok(finished);
    }
    if let Some((_, checkpoint)) = checkpoints(&run.join(part.name())).latest()? {
        return Ok(checkpoint.join(EMA));
    }
    let start = start_weights(run, part);
    ensure!(start.exists(), "{} has no weights of the part {part} yet", run.display());
    Ok(start)
}

/// The checkpoints of a part; a checkpoint's name is the number of steps done.
pub(crate) fn checkpoints(folder: &Path) -> CheckpointFolder<u64> {
    let steps = |path: &Path| Ok(path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()));
    CheckpointFolder::new(folder.join(layout::CHECKPOINTS), steps)
}

/// Writes the checkpoint of `step` by means of `contents`, then removes earlier ones. It is complete or absent.
pub(crate) fn write_checkpoint(folder: &Path, step: u64, contents: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let checkpoints = checkpoints(folder);
    let path = checkpoints.checkpoint(&format!("{step:07}"));
    if path.exists() {
        return Ok(());
    }
    runs::write_checkpoint(&path, contents)?;
    checkpoints.keep_latest()
}
