//! What a checkpoint is to hold, and its writing beside the steps.

use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use anyhow::{Result, anyhow};
use libtorch::Download;
use tch::{Device, Kind, Tensor};

use crate::checkpoint::{Checkpoint, State};

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
    /// For want of memory.
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
pub(crate) struct Writer {
    folder: PathBuf,
    /// At work beside the steps.
    thread: Option<JoinHandle<Result<()>>>,
}

impl Writer {
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

    /// Waits until what was begun is written.
    ///
    /// # Errors
    /// When it could not be.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the thread that writes checkpoints has failed"))?
    }
}

impl Drop for Writer {
    /// A run that fails otherwise keeps the checkpoint that was begun before.
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runs::Stage;

    fn snapshot(step: usize) -> Snapshot {
        let files = vec![File::new("numbers.safetensors", [("x", &Tensor::from(step as i64))])];
        Snapshot::new(State { stage: Stage::Unet, step }, files)
    }

    #[test]
    fn what_is_written_beside_is_there_when_it_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path().join("checkpoints"));
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
        let mut writer = Writer::new("/proc/no".into());
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
