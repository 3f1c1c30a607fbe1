//! The folder and who may work in it.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{config, log};

const LOCK: &str = ".lock";

/// A run's folder, locked for this process until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The operating system's lock goes with the open file; that the file remains means nothing.
    lock: File,
}

impl RunFolder {
    /// The folder of a new run, made if need be.
    ///
    /// # Errors
    /// When it holds a run, another process works in it, or it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the run folder {}", path.display()))?;
        let folder = Self::lock(path)?;
        if holds_run(path) {
            bail!("{} already holds a run; go on with it by --resume, or choose another --out", path.display());
        }
        Ok(folder)
    }

    /// The folder of a run that was begun before.
    ///
    /// # Errors
    /// When there is no run in it, or another process works in it.
    pub fn resume(path: &Path) -> Result<Self> {
        if !path.join(config::FILE).exists() {
            bail!("there is no run in {} to resume; leave out --resume to start one", path.display());
        }
        Self::lock(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(path: &Path) -> Result<Self> {
        let file = path.join(LOCK);
        let failed = || format!("cannot lock {}", file.display());
        // Not emptied before it is ours: until then another process's number stands in it.
        let options = File::options().read(true).write(true).create(true).truncate(false).clone();
        let mut lock = options.open(&file).with_context(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process = fs::read_to_string(&file).unwrap_or_default();
                let process = process.trim().parse::<u32>().map_or(String::new(), |id| format!(" (process {id})"));
                bail!(
                    "folder {} is in use by another run{process}; wait for it, or choose another --out",
                    path.display()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).with_context(failed)?;
        Ok(Self { path: path.to_owned(), lock })
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Only a courtesy to readers: the lock itself ends when the file is closed.
        let _ = self.lock.set_len(0);
    }
}

fn holds_run(path: &Path) -> bool {
    [config::FILE, log::FILE].iter().any(|file| path.join(file).exists())
}
