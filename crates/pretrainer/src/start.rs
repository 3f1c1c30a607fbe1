//! Weights to begin from that a finished model has had.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::Part;
use crate::assemble::SCALING_FACTOR;

/// Where a part's folder keeps them.
pub(crate) fn start_weights(run: &Path, part: Part) -> PathBuf {
    run.join(part.name()).join("start.safetensors")
}

/// Lets the parts in `run` begin with the weights of `model`, a folder that [`assemble`](crate::assemble()) has made,
/// instead of random ones. Parts that are not trained serve as they are; those that have begun already are left alone.
///
/// # Errors
/// When `model` lacks a part, or a file cannot be written. Shapes are looked at when training begins.
pub fn start_from(model: &Path, run: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Vae {
        scaling_factor: f64,
    }
    for part in Part::ALL {
        let start = start_weights(run, part);
        let folder = run.join(part.name());
        if start.exists() || folder.join("config.json").exists() {
            continue;
        }
        let weights = model.join(part.file());
        let bytes = fs::read(&weights)
            .with_context(|| format!("cannot begin from {}: cannot read {}", model.display(), weights.display()))?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        if part == Part::Vae {
            // The U-Net has learned under it.
            let vae: Vae = weights::read_config(&model.join("vae/config.json"))?;
            atomic::write(&run.join(SCALING_FACTOR), serde_json::to_string(&vae.scaling_factor)?)?;
        }
        atomic::write(&start, bytes)?;
    }
    Ok(())
}
