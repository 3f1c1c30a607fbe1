//! The checkpoints of a run, from which it resumes: each a folder that is complete or absent.

use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use anyhow::{Result, anyhow, ensure};
use libtorch::Download;
use runs::{CheckpointFolder, Group, TrainConfig};
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

/// How far a run is; a later one is greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct State {
    /// The number of the phase, from 0.
    pub number: usize,
    /// Steps done in it.
    pub step: usize,
    /// The phase's name.
    pub phase: String,
}

impl Checkpoint {
    pub(crate) const EMA: &str = "ema.safetensors";
    const STATE: &str = "state.json";

    /// The name of the folder of a checkpoint of a phase.
    pub(crate) fn folder_name(phase: &str, step: usize) -> String {
        format!("{phase}-{step:05}")
    }

    /// The file of a group's parameters.
    pub(crate) fn weights(group: Group) -> String {
        format!("{group}.safetensors")
    }

    /// The file of what the optimiser remembers of them.
    pub(crate) fn optimizer(group: Group) -> String {
        format!("{group}.optimizer.safetensors")
    }

    /// Opens the checkpoint in the folder `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), state: json::read(&path.join(Self::STATE), "the state of a checkpoint")? })
    }

    /// The checkpoint that is furthest among the folders in `parent`, if there is any.
    ///
    /// # Errors
    /// When a checkpoint is damaged.
    pub fn latest(parent: &Path) -> Result<Option<Self>> {
        Ok(Self::folder(parent).latest()?.map(|(state, path)| Self { path, state }))
    }

    /// The checkpoints in the folder `parent`.
    pub fn folder(parent: &Path) -> CheckpointFolder<State> {
        CheckpointFolder::new(parent.to_owned(), state)
    }

    /// Checks that the run of `config` can be where the checkpoint is.
    ///
    /// # Errors
    /// When there is no such phase, or it has fewer steps.
    pub(crate) fn check(&self, config: &TrainConfig) -> Result<()> {
        let State { number, step, phase } = &self.state;
        let steps = config.phases.get_index(*number).filter(|(name, _)| *name == phase).map(|(_, phase)| phase.steps);
        ensure!(
            steps.is_some_and(|steps| *step <= steps),
            "the checkpoint {} has done {step} steps of phase {phase}, which has only {} in the run's configuration: remove it \
             to resume without it",
            self.path.display(),
            steps.unwrap_or(0)
        );
        Ok(())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Copies the tensors of one of the checkpoint's files into `parameters`.
    pub(crate) fn restore(&self, parameters: &[(&str, &Tensor)], file: &str) -> Result<()> {
        restore(parameters, &self.file(file))
    }
}

/// Copies the tensors of a file, which has just these or a token's embeddings for SDXL, into `parameters`.
pub(crate) fn restore(parameters: &[(&str, &Tensor)], path: &Path) -> Result<()> {
    let archive = Archive::open(path)?;
    let Some((token, first)) = parameters.first() else { return Ok(()) };
    let to = (first.kind(), first.device());
    let of_sdxl = parameters.len() == 1 && archive.shapes().any(|(name, _)| name == "clip_g");
    let saved = match export::embedding_in(&archive, token)?.filter(|_| of_sdxl) {
        Some(rows) => {
            ensure!(
                rows.size() == first.size(),
                "{} holds embeddings of shape {:?} instead of {:?}",
                path.display(),
                rows.size(),
                first.size()
            );
            vec![rows.to_kind(to.0)]
        }
        None => {
            weights::build(&archive, to, |vs| {
                Ok(parameters.iter().map(|(name, p)| vs.get(name, &p.size(), Init::Const(0.0))).collect())
            })?
            .0
        }
    };
    libtorch::catch(|| {
        tch::no_grad(|| {
            for ((_, parameter), saved) in parameters.iter().zip(&saved) {
                parameter.shallow_clone().copy_(saved);
            }
        });
    })?;
    Ok(())
}

/// How far the checkpoint in a folder is. One that is damaged must not pass for somebody else's folder: its name tells.
fn state(path: &Path) -> Result<Option<State>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let named = name.rsplit_once('-').is_some_and(|(_, step)| digits(step));
    match Checkpoint::open(path) {
        Ok(checkpoint) => Ok(Some(checkpoint.state)),
        Err(error) if named => Err(error),
        Err(_) => Ok(None),
    }
}

/// The files of a checkpoint before they are files. The tensors are the trainer's own, which the next step changes, until
/// [`PendingCheckpoint::copied`].
#[derive(Debug)]
pub struct PendingCheckpoint {
    state: State,
    files: Vec<File>,
    /// A number that was asked of the device after all tensors of a copy: when it is there, so are they.
    arrived: Option<Download>,
}

/// A file of named tensors.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) tensors: Vec<(String, Tensor)>,
    pub(crate) metadata: Vec<(&'static str, String)>,
}

impl File {
    pub(crate) fn new<'a, N: Into<String>>(
        name: impl Into<String>,
        tensors: impl IntoIterator<Item = (N, &'a Tensor)>,
    ) -> Self {
        let tensors = tensors.into_iter().map(|(name, tensor)| (name.into(), tensor.detach())).collect();
        Self { name: name.into(), tensors, metadata: Vec::new() }
    }
}

impl PendingCheckpoint {
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
        runs::write_checkpoint(path, |folder| {
            self.files.iter().try_for_each(|File { name, tensors, metadata }| {
                let tensors = tensors.iter().map(|(name, tensor)| (name, tensor));
                let metadata: Vec<(&str, &str)> = metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
                weights::save_with_metadata(&folder.join(name), tensors, &metadata)
            })?;
            atomic::write(&folder.join(Checkpoint::STATE), serde_json::to_vec_pretty(&self.state)?)
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
    pub(crate) fn write(&mut self, pending: PendingCheckpoint, beside: bool) -> Result<()> {
        let earlier = self.finish();
        let State { phase, step, .. } = &pending.state;
        let (folder, path) = (self.folder.clone(), self.folder.join(Checkpoint::folder_name(phase, *step)));
        let write = move |pending: PendingCheckpoint| {
            pending.write(&path)?;
            Checkpoint::folder(&folder).keep_latest()
        };
        let room = libtorch::available_memory().is_some_and(|free| free / 2 > pending.size());
        if !beside || !room || earlier.is_err() {
            // With this one there, an earlier one is not missed.
            return write(pending);
        }
        let pending = pending.copied()?;
        let work = move || libtorch::catch(|| write(pending))?;
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
    use std::fs;

    use super::*;

    #[test]
    fn what_is_not_a_checkpoint_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        for (name, state) in
            [("unet-00002", r#"{"number": 2, "phase": "unet", "step": 2}"#), ("notes", ""), ("other", "[1]")]
        {
            fs::create_dir(at(name)).unwrap();
            if !state.is_empty() {
                fs::write(at(name).join(Checkpoint::STATE), state).unwrap();
            }
        }
        let mut foreign = Checkpoint::folder(parent.path()).foreign();
        foreign.sort();
        assert_eq!(foreign, [at("notes"), at("other")]);
        assert_eq!(Checkpoint::latest(parent.path()).unwrap().unwrap().state.step, 2);
        Checkpoint::folder(parent.path()).keep_latest().unwrap();
        assert!(foreign.iter().chain([&at("unet-00002")]).all(|path| path.exists()));
        // A damaged one is said to be one, but goes with the others.
        fs::create_dir(at("embedding-00001")).unwrap();
        let error = format!("{:#}", Checkpoint::latest(parent.path()).unwrap_err());
        assert!(error.contains("embedding-00001"), "{error}");
        Checkpoint::folder(parent.path()).discard_all().unwrap();
        assert!(foreign.iter().all(|path| path.exists()) && !at("unet-00002").exists());
    }

    fn pending(step: usize) -> PendingCheckpoint {
        let files = vec![File::new("numbers.safetensors", [("x", &Tensor::from(step as i64))])];
        PendingCheckpoint::new(State { number: 2, step, phase: "unet".to_owned() }, files)
    }

    #[test]
    fn what_is_written_beside_is_there_when_it_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = CheckpointWriter::new(folder.path().join("checkpoints"));
        for (step, beside) in [(1, true), (2, true), (3, false), (4, true)] {
            writer.write(pending(step), beside).unwrap();
        }
        writer.finish().unwrap();
        let entries = std::fs::read_dir(folder.path().join("checkpoints")).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["unet-00004"]);
    }

    #[test]
    fn what_could_not_be_written_beside_is_said_later() {
        let mut writer = CheckpointWriter::new("/proc/no".into());
        writer.write(pending(1), true).unwrap();
        let error = writer.finish().unwrap_err();
        assert!(format!("{error:#}").contains("cannot write the checkpoint /proc/no/unet-00001"), "{error:#}");
        // One that can be written makes up for one that could not.
        writer.write(pending(2), true).unwrap();
        let folder = tempfile::tempdir().unwrap();
        writer.folder = folder.path().to_owned();
        writer.write(pending(3), true).unwrap();
        assert!(folder.path().join("unet-00003").exists());
        writer.finish().unwrap();
    }
}
