//! Weights to begin from that a finished model has had.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::assemble::SCALING_FACTOR;
use crate::{Part, Sources};

/// The file of them in a part's folder.
pub(crate) const START: &str = "start.safetensors";

/// Files of which a folder for the parts has at least one when any part has begun.
pub const MADE: [&str; 6] = [
    "vae/log.jsonl",
    "clip/log.jsonl",
    "unet/log.jsonl",
    "vae/start.safetensors",
    "clip/start.safetensors",
    "unet/start.safetensors",
];

/// The miniature's parts have 24 MB together.
const MODEL_BYTES: u64 = 1 << 30;

/// Where a part's folder keeps them.
pub(crate) fn start_weights(run: &Path, part: Part) -> PathBuf {
    run.join(part.name()).join(START)
}

/// Whether a part's folder has a training of its own, beside the weights to begin from.
pub(crate) fn holds_training(folder: &Path) -> bool {
    folder.join("config.json").exists()
}

/// Lets the parts in `run` begin with the weights of `model`, a folder that [`assemble`](crate::assemble()) has made, instead
/// of random ones. Parts that are not trained then serve as they are. Again with the same model it does nothing.
///
/// # Errors
/// When `model` lacks a part or has other words than `sources`, when a part in `run` has begun from something else, or a
/// file cannot be written. Shapes are looked at when training begins.
pub fn start_from(model: &Path, run: &Path, sources: &Sources) -> Result<()> {
    #[derive(Deserialize)]
    struct Vae {
        scaling_factor: f64,
    }
    let read = |path: PathBuf| {
        limits::read_at_most(&path, MODEL_BYTES).with_context(|| format!("cannot read {}", path.display()))
    };
    let begin = || {
        // A token's row in the text encoder depends on all words.
        let words = tempfile::tempdir().context("cannot make a temporary folder")?;
        sources.tokenizer.save(words.path())?;
        for file in ["vocab.json", "merges.txt"] {
            let same = read(words.path().join(file))? == read(model.join("tokenizer").join(file))?;
            ensure!(same, "its tokenizer/{file} has other words than the world of scenes");
        }
        // The U-Net has learned under it.
        let vae: Vae = weights::read_config(&model.join("vae/config.json"))?;
        let weights = Part::ALL.map(|part| anyhow::Ok((part, read(model.join(part.file()))?)));
        let mut new = Vec::new();
        for (part, bytes) in weights.into_iter().collect::<Result<Vec<_>>>()? {
            let (start, folder) = (start_weights(run, part), run.join(part.name()));
            if start.exists() {
                ensure!(read(start)? == bytes, "{} has begun from another model", folder.display());
            } else {
                ensure!(!holds_training(&folder), "{} has begun from something else", folder.display());
                fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
                new.push((start, bytes));
            }
        }
        if !new.is_empty() {
            atomic::write(&run.join(SCALING_FACTOR), serde_json::to_string(&vae.scaling_factor)?)?;
        }
        new.into_iter().try_for_each(|(start, bytes)| atomic::write(&start, bytes))
    };
    begin().with_context(|| format!("{} cannot begin from {}", run.display(), model.display()))
}
