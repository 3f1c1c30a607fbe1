//! A run's own copy of what it starts from, so that it depends on no other run.

use std::path::Path;

use anyhow::Result;
use methods::Learned;
use runs::{Group, layout};
use sampling::Pipeline;
use tch::Tensor;

use crate::checkpoint;
use crate::phase_run::Trainer;

/// Writes what the trainer starts from, where that is not the method's own start.
pub(crate) fn keep(trainer: &Trainer, out: &Path) -> Result<()> {
    let path = out.join(layout::START);
    if trainer.config.init_from.is_none() || path.exists() {
        return Ok(());
    }
    weights::save(&path, parameters(&trainer.pipeline, &trainer.learned))
}

/// Restores it; returns whether there is one.
pub(crate) fn restore(pipeline: &Pipeline, learned: &Learned, run: &Path) -> Result<bool> {
    let path = run.join(layout::START);
    if !path.exists() {
        return Ok(false);
    }
    checkpoint::restore(&parameters(pipeline, learned), &path)?;
    Ok(true)
}

/// The embeddings, and what the method adds.
fn parameters<'a>(pipeline: &'a Pipeline, learned: &'a Learned) -> Vec<(&'a str, &'a Tensor)> {
    [Group::Embedding, Group::Adapter].into_iter().flat_map(|group| learned.parameters(pipeline, group)).collect()
}
