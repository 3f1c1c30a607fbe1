//! Starting from the weights of a finished model.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::folder::{SCALING_FACTOR, holds_training, start_weights};
use crate::{Part, Sources};

/// The miniature's parts have 24 MB together.
const MODEL_BYTES: u64 = 1 << 30;

/// Lets the parts in `run` start from the weights of `model`, a folder that [`assemble`](crate::assemble()) has made, instead
/// of random ones. Parts that are not trained are used as they are. Repeated with the same model it does nothing.
///
/// # Errors
/// When `model` lacks a part or has other words than `sources`, when a part in `run` has started from something else, or a
/// file cannot be written. Shapes are checked when training starts.
pub fn start_from(model: &Path, run: &Path, sources: &Sources) -> Result<()> {
    #[derive(Deserialize)]
    struct Vae {
        scaling_factor: f64,
    }
    let read = |path: PathBuf| {
        limits::read_at_most(&path, MODEL_BYTES).with_context(|| format!("cannot read {}", path.display()))
    };
    let start = || {
        // A token's row in the text encoder depends on all words.
        let words = tempfile::tempdir().context("cannot create a temporary folder")?;
        sources.tokenizer.save(words.path())?;
        for file in ["vocab.json", "merges.txt"] {
            let same = read(words.path().join(file))? == read(model.join("tokenizer").join(file))?;
            ensure!(same, "its tokenizer/{file} has other words than the world of scenes");
        }
        // The U-Net was trained with it.
        let vae: Vae = weights::read_config(&model.join("vae/config.json"))?;
        let weights = Part::ALL.map(|part| anyhow::Ok((part, read(model.join(part.file()))?)));
        let mut new = Vec::new();
        for (part, bytes) in weights.into_iter().collect::<Result<Vec<_>>>()? {
            let (start, folder) = (start_weights(run, part), run.join(part.name()));
            if start.exists() {
                ensure!(read(start)? == bytes, "{} was started from another model", folder.display());
            } else {
                ensure!(!holds_training(&folder), "{} was started from something else", folder.display());
                fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
                new.push((start, bytes));
            }
        }
        if !new.is_empty() {
            atomic::write(&run.join(SCALING_FACTOR), serde_json::to_string(&vae.scaling_factor)?)?;
        }
        new.into_iter().try_for_each(|(start, bytes)| atomic::write(&start, bytes))
    };
    start().with_context(|| format!("{} cannot start from {}", run.display(), model.display()))
}
