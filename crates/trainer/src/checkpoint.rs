//! What a run needs to go on: a folder that is complete or absent.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use weights::{Archive, Init};

use crate::Stage;

/// A checkpoint on disk.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// How far the run was.
    pub state: State,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct State {
    /// The stage.
    pub stage: Stage,
    /// Steps done in it.
    pub step: usize,
}

impl Checkpoint {
    pub(crate) const EMBEDDING: &str = "embedding.safetensors";
    pub(crate) const UNET: &str = "unet.safetensors";
    pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
    pub(crate) const EMA: &str = "ema.safetensors";
    const STATE: &str = "state.json";

    /// Opens the checkpoint in the folder `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), state: weights::read_config(&path.join(Self::STATE))? })
    }

    /// The checkpoint that is furthest on among the folders in `parent`, if there is any.
    ///
    /// # Errors
    /// When a checkpoint is damaged.
    pub fn latest(parent: &Path) -> Result<Option<Self>> {
        let all = Self::all(parent)?;
        Ok(all.into_iter().max_by_key(|checkpoint| checkpoint.state))
    }

    /// Removes all checkpoints in `parent` but the one that is furthest on.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn keep_latest(parent: &Path) -> Result<()> {
        let mut all = Self::all(parent)?;
        all.sort_by_key(|checkpoint| checkpoint.state);
        all.pop();
        for old in all {
            fs::remove_dir_all(&old.path).with_context(|| format!("cannot remove {}", old.path.display()))?;
        }
        Ok(())
    }

    fn all(parent: &Path) -> Result<Vec<Self>> {
        let Ok(entries) = fs::read_dir(parent) else { return Ok(Vec::new()) };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        // What a killed process left half-written has a name that begins with a dot.
        let whole =
            paths.filter(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
        whole.filter(|path| path.is_dir()).map(|path| Self::open(&path)).collect()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a checkpoint by means of `contents` under a hidden name and then gives it its own.
    pub(crate) fn write(
        path: &Path,
        stage: Stage,
        step: usize,
        contents: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let parent = path.parent().context("a checkpoint needs a folder to stand in")?;
        let failed = || format!("cannot write the checkpoint {}", path.display());
        fs::create_dir_all(parent).with_context(failed)?;
        let hidden = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent).with_context(failed)?;
        contents(hidden.path()).with_context(failed)?;
        let state = serde_json::to_vec_pretty(&State { stage, step })?;
        atomic::write(&hidden.path().join(Self::STATE), state).with_context(failed)?;
        if path.exists() {
            fs::remove_dir_all(path).with_context(failed)?;
        }
        fs::rename(hidden.keep(), path).with_context(failed)?;
        fs::File::open(parent).and_then(|parent| parent.sync_all()).with_context(failed)
    }

    /// Copies the tensors of one of the checkpoint's files into `parameters`.
    pub(crate) fn restore(&self, parameters: &[(&str, &Tensor)], file: &str) -> Result<()> {
        let archive = Archive::open(&self.file(file))?;
        let Some((_, first)) = parameters.first() else { return Ok(()) };
        let to = (first.kind(), first.device());
        let (saved, _) = weights::build(&archive, to, |vs| {
            Ok(parameters.iter().map(|(name, p)| vs.get(name, &p.size(), Init::Const(0.0))).collect::<Vec<_>>())
        })?;
        libtorch::catch(|| {
            tch::no_grad(|| {
                for ((_, parameter), saved) in parameters.iter().zip(&saved) {
                    parameter.shallow_clone().copy_(saved);
                }
            });
        })?;
        Ok(())
    }
}
