//! The folder of a run's checkpoints, each a folder within it that is complete or absent.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder of checkpoints, of which a run keeps the latest.
#[derive(Debug, Clone)]
pub struct CheckpointFolder<K> {
    path: PathBuf,
    /// How far the checkpoint in a folder is: none if it is not a checkpoint, an error if it is damaged.
    read: fn(&Path) -> Result<Option<K>>,
}

impl<K: Ord> CheckpointFolder<K> {
    /// The folder `path`, which need not exist. `read` says how far the checkpoint in a folder is: none if it is not a
    /// checkpoint, an error if it is damaged.
    pub fn new(path: PathBuf, read: fn(&Path) -> Result<Option<K>>) -> Self {
        Self { path, read }
    }

    /// The path of the checkpoint called `name`.
    pub fn checkpoint(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The checkpoint that is furthest, if there is any.
    ///
    /// # Errors
    /// When a checkpoint is damaged.
    pub fn latest(&self) -> Result<Option<(K, PathBuf)>> {
        Ok(self.all()?.pop())
    }

    /// The folders that are not checkpoints; they are left alone.
    pub fn foreign(&self) -> Vec<PathBuf> {
        let foreign = |path: &PathBuf| !is_partial(path) && matches!((self.read)(path), Ok(None));
        folders(&self.path).into_iter().filter(foreign).collect()
    }

    /// Removes all checkpoints but the one that is furthest, and what killed processes left half-written. Nobody else may be
    /// writing here.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn keep_latest(&self) -> Result<()> {
        let mut all = self.all()?;
        all.pop();
        self.discard(all.into_iter().map(|(_, path)| path))
    }

    /// Removes all checkpoints, damaged ones too, and the folder itself if nothing else is in it.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn discard_all(&self) -> Result<()> {
        let ours = |path: &PathBuf| !matches!((self.read)(path), Ok(None));
        self.discard(folders(&self.path).into_iter().filter(ours))?;
        // It stays where somebody has put something else there.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }

    /// In their order.
    fn all(&self) -> Result<Vec<(K, PathBuf)>> {
        let whole = folders(&self.path).into_iter().filter(|path| !is_partial(path));
        let read = whole.map(|path| Ok((self.read)(&path)?.map(|state| (state, path))));
        let mut all: Vec<(K, PathBuf)> = read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        all.sort();
        Ok(all)
    }

    /// Removes what killed processes left half-written, and then these checkpoints.
    fn discard(&self, whole: impl Iterator<Item = PathBuf>) -> Result<()> {
        let partial = folders(&self.path).into_iter().filter(|path| is_partial(path));
        // Those first: one may have the hidden name that another is to get.
        partial.chain(whole.filter(|path| !is_partial(path))).try_for_each(|old| discard(&old))
    }
}

/// Writes the checkpoint `path` by means of `contents` under a hidden name and then gives it its own; one that is there gives
/// way at the same moment.
///
/// # Errors
/// When it cannot be written; earlier checkpoints are as they were.
pub fn write_checkpoint(path: &Path, contents: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    atomic::replace_folder(path, contents).with_context(|| format!("cannot write the checkpoint {}", path.display()))
}

fn is_partial(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(atomic::PARTIAL.as_bytes()))
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
