//! The checkpoints of a run, from which it resumes: each a folder that is complete or absent.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, anyhow, ensure};
use libtorch::Download;
use runs::{Stage, TrainConfig};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
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
            "the checkpoint {} has done {step} steps of stage {stage}, which has only {steps}: remove it to resume without it",
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

/// The files of a checkpoint before they are files. The tensors are the trainer's own, which the next step changes, until
/// [`Snapshot::copied`].
#[derive(Debug)]
pub struct Snapshot {
    state: State,
    files: Vec<File>,
    /// A number that was asked of the device after all tensors of a copy: when it is there, so are they.
    arrived: Option<Download>,
}

/// A file of named tensors.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) tensors: Vec<(String, Tensor)>,
    pub(crate) metadata: Vec<(&'static str, String)>,
}

impl File {
    pub(crate) fn new<'a, N: Into<String>>(
        name: &'static str,
        tensors: impl IntoIterator<Item = (N, &'a Tensor)>,
    ) -> Self {
        let tensors = tensors.into_iter().map(|(name, tensor)| (name.into(), tensor.detach())).collect();
        Self { name, tensors, metadata: Vec::new() }
    }
}

impl Snapshot {
    /// Of the trainer's own tensors.
    pub(crate) fn new(state: State, files: Vec<File>) -> Self {
        Self { state, files, arrived: None }
    }

    /// The same in the host's memory, whatever is trained meanwhile. From a GPU it is asked for, into page-locked memory, and
    /// waited for only when it is written.
    ///
    /// # Errors
    /// For lack of memory.
    pub fn copied(mut self) -> Result<Self> {
        let mut device = Device::Cpu;
        libtorch::catch(|| {
            for (_, tensor) in self.files.iter_mut().flat_map(|file| &mut file.tensors) {
                *tensor = match tensor.device() {
                    Device::Cpu => tensor.copy(),
                    other => {
                        device = other;
                        tensor.to_device_(Device::Cpu, tensor.kind(), /* non_blocking: */ true, false)
                    }
                };
            }
        })?;
        if device != Device::Cpu {
            self.arrived = Some(Download::new(&libtorch::catch(|| Tensor::zeros([], (Kind::Float, device)))?)?);
        }
        Ok(self)
    }

    /// The bytes of all tensors.
    fn size(&self) -> u64 {
        let tensors = self.files.iter().flat_map(|file| &file.tensors);
        tensors.map(|(_, tensor)| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum()
    }

    /// Writes the checkpoint into the folder `path`, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written; earlier checkpoints are as they were.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(arrived) = &self.arrived {
            arrived.wait()?;
        }
        Checkpoint::write(path, self.state, |folder| {
            self.files.iter().try_for_each(|File { name, tensors, metadata }| {
                let tensors = tensors.iter().map(|(name, tensor)| (name, tensor));
                let metadata: Vec<(&str, &str)> = metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
                weights::save_with_metadata(&folder.join(name), tensors, &metadata)
            })
        })
    }
}

/// Writes a run's checkpoints, and removes the one before each.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    folder: PathBuf,
    /// At work beside the steps.
    thread: Option<JoinHandle<Result<()>>>,
}

impl CheckpointWriter {
    /// Of checkpoints in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, thread: None }
    }

    /// Writes a checkpoint; `beside` what comes next, if the host has memory for two copies.
    ///
    /// # Errors
    /// When it, or an earlier one beside the steps, could not be written.
    pub(crate) fn write(&mut self, snapshot: Snapshot, beside: bool) -> Result<()> {
        let earlier = self.finish();
        let State { stage, step } = snapshot.state;
        let (folder, path) = (self.folder.clone(), self.folder.join(format!("{stage}-{step:05}")));
        let write = move |snapshot: Snapshot| {
            snapshot.write(&path)?;
            Checkpoint::keep_latest(&folder)
        };
        let room = libtorch::available_memory().is_some_and(|free| free / 2 > snapshot.size());
        if !beside || !room || earlier.is_err() {
            // With this one there, an earlier one is not missed.
            return write(snapshot);
        }
        let snapshot = snapshot.copied()?;
        let work = move || libtorch::catch(|| write(snapshot))?;
        self.thread = Some(Builder::new().name("checkpoint".to_owned()).spawn(work)?);
        Ok(())
    }

    /// Waits until the checkpoint that is being written is there.
    ///
    /// # Errors
    /// When it could not be.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the thread that writes checkpoints has failed"))?
    }
}

impl Drop for CheckpointWriter {
    /// A run that fails otherwise keeps the checkpoint that was started before.
    fn drop(&mut self) {
        let _ = self.finish();
    }
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

    fn snapshot(step: usize) -> Snapshot {
        let files = vec![File::new("numbers.safetensors", [("x", &Tensor::from(step as i64))])];
        Snapshot::new(State { stage: Stage::Unet, step }, files)
    }

    #[test]
    fn what_is_written_beside_is_there_when_it_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = CheckpointWriter::new(folder.path().join("checkpoints"));
        for (step, beside) in [(1, true), (2, true), (3, false), (4, true)] {
            writer.write(snapshot(step), beside).unwrap();
        }
        writer.finish().unwrap();
        let entries = std::fs::read_dir(folder.path().join("checkpoints")).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["unet-00004"]);
    }

    #[test]
    fn what_could_not_be_written_beside_is_said_later() {
        let mut writer = CheckpointWriter::new("/proc/no".into());
        writer.write(snapshot(1), true).unwrap();
        let error = writer.finish().unwrap_err();
        assert!(format!("{error:#}").contains("cannot write the checkpoint /proc/no/unet-00001"), "{error:#}");
        // One that can be written makes up for one that could not.
        writer.write(snapshot(2), true).unwrap();
        let folder = tempfile::tempdir().unwrap();
        writer.folder = folder.path().to_owned();
        writer.write(snapshot(3), true).unwrap();
        assert!(folder.path().join("unet-00003").exists());
        writer.finish().unwrap();
    }
}
