//! What a run needs to go on: a folder that is complete or absent.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use runs::{Stage, TrainConfig};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use weights::{Archive, Init};

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
        Ok(Self { path: path.to_owned(), state: json::read(&path.join(Self::STATE), "the state of a checkpoint")? })
    }

    /// The checkpoint that is furthest on among the folders in `parent`, if there is any.
    ///
    /// # Errors
    /// When a checkpoint is damaged.
    pub fn latest(parent: &Path) -> Result<Option<Self>> {
        let all = Self::all(parent)?;
        Ok(all.into_iter().max_by_key(|checkpoint| checkpoint.state))
    }

    /// The folders in `parent` that are not checkpoints of this program; they are left alone.
    pub fn foreign(parent: &Path) -> Vec<PathBuf> {
        folders(parent).into_iter().filter(|path| !is_partial(path) && !is_checkpoint(path)).collect()
    }

    /// Removes all checkpoints in `parent` but the one that is furthest on, and what killed processes left half-written.
    /// Nobody else may be writing there.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn keep_latest(parent: &Path) -> Result<()> {
        let mut all = Self::all(parent)?;
        all.sort_by_key(|checkpoint| checkpoint.state);
        all.pop();
        discard_with_partial(parent, all.into_iter().map(|checkpoint| checkpoint.path))
    }

    /// Removes all checkpoints in `parent`, and the folder itself if nothing else is in it.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn discard_all(parent: &Path) -> Result<()> {
        discard_with_partial(parent, folders(parent).into_iter().filter(|path| is_checkpoint(path)))?;
        // It stays where somebody has put something else there.
        let _ = fs::remove_dir(parent);
        Ok(())
    }

    fn all(parent: &Path) -> Result<Vec<Self>> {
        let ours = folders(parent).into_iter().filter(|path| !is_partial(path) && is_checkpoint(path));
        ours.map(|path| Self::open(&path)).collect()
    }

    /// Checks that the run of `config` can be where the checkpoint is.
    ///
    /// # Errors
    /// When its stage has fewer steps.
    pub(crate) fn check(&self, config: &TrainConfig) -> Result<()> {
        let State { stage, step } = self.state;
        let steps = config.stage(stage).steps;
        ensure!(
            step <= steps,
            "the checkpoint {} has done {step} steps of stage {stage}, which has only {steps}: remove it to go on without it",
            self.path.display()
        );
        Ok(())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a checkpoint by means of `contents` under a hidden name and then gives it its own.
    pub(crate) fn write(path: &Path, state: State, contents: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let fill = |hidden: &Path| {
            contents(hidden)?;
            atomic::write(&hidden.join(Self::STATE), serde_json::to_vec_pretty(&state)?)
        };
        // The one of the same step, if there is any, gives way at the same moment.
        atomic::replace_folder(path, fill).with_context(|| format!("cannot write the checkpoint {}", path.display()))
    }

    /// Copies the tensors of one of the checkpoint's files into `parameters`.
    pub(crate) fn restore(&self, parameters: &[(&str, &Tensor)], file: &str) -> Result<()> {
        restore(parameters, &self.file(file))
    }
}

/// Copies the tensors of a file, which has just these, into `parameters`.
pub(crate) fn restore(parameters: &[(&str, &Tensor)], path: &Path) -> Result<()> {
    let archive = Archive::open(path)?;
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

/// Whether a folder is a checkpoint, if only by its name: one that is damaged must not pass for somebody else's.
fn is_checkpoint(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let named = name.rsplit_once('-').is_some_and(|(stage, step)| {
        Stage::ALL.iter().any(|known| known.name() == stage) && step.parse::<usize>().is_ok()
    });
    named || Checkpoint::open(path).is_ok()
}

fn is_partial(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(atomic::PARTIAL.as_bytes()))
}

/// Removes what killed processes left half-written in `parent`, and then these checkpoints.
fn discard_with_partial(parent: &Path, whole: impl Iterator<Item = PathBuf>) -> Result<()> {
    let partial = folders(parent).into_iter().filter(|path| is_partial(path));
    // Those first: one may have the hidden name that another is to get.
    partial.chain(whole.filter(|path| !is_partial(path))).try_for_each(|old| discard(&old))
}

/// Removes a checkpoint, which is no longer one from the first moment: a process killed meanwhile leaves nothing that
/// looks like a damaged one.
fn discard(path: &Path) -> Result<()> {
    let failed = || format!("cannot remove {}", path.display());
    let mut hidden = path.to_owned();
    if let Some(name) = path.file_name().filter(|_| !is_partial(path)) {
        hidden.set_file_name(format!("{}{}", atomic::PARTIAL, name.to_string_lossy()));
        fs::rename(path, &hidden).with_context(failed)?;
    }
    fs::remove_dir_all(&hidden).with_context(failed)
}

/// The folders in a folder; none where it does not exist.
fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_checkpoint_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        for (name, state) in [("unet-00002", r#"{"stage": "unet", "step": 2}"#), ("notes", ""), ("other", "[1]")] {
            fs::create_dir(at(name)).unwrap();
            if !state.is_empty() {
                fs::write(at(name).join(Checkpoint::STATE), state).unwrap();
            }
        }
        let mut foreign = Checkpoint::foreign(parent.path());
        foreign.sort();
        assert_eq!(foreign, [at("notes"), at("other")]);
        assert_eq!(Checkpoint::latest(parent.path()).unwrap().unwrap().state.step, 2);
        Checkpoint::keep_latest(parent.path()).unwrap();
        assert!(foreign.iter().chain([&at("unet-00002")]).all(|path| path.exists()));
        // A damaged one is said to be one, but goes with the others.
        fs::create_dir(at("embedding-00001")).unwrap();
        let error = format!("{:#}", Checkpoint::latest(parent.path()).unwrap_err());
        assert!(error.contains("embedding-00001"), "{error}");
        Checkpoint::discard_all(parent.path()).unwrap();
        assert!(foreign.iter().all(|path| path.exists()) && !at("unet-00002").exists());
    }
}
