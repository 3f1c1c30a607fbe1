//! The folder of a run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{Lock, config, log};

/// A run's folder, locked for this process until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held as long as this is.
    _lock: Lock,
}

impl RunFolder {
    /// The folder of a new run, made if need be.
    ///
    /// # Errors
    /// When it holds a run, another process works in it, or it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the run folder {}", path.display()))?;
        let lock = Lock::take(path)?;
        if holds_run(path) {
            bail!("{} already holds a run; go on with it by --resume, or choose another --out", path.display());
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder of a run that was begun before.
    ///
    /// # Errors
    /// When there is no run in it, or another process works in it.
    pub fn resume(path: &Path) -> Result<Self> {
        if !path.join(config::FILE).exists() {
            bail!("there is no run in {} to resume; leave out --resume to start one", path.display());
        }
        Ok(Self { path: path.to_owned(), _lock: Lock::take(path)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn holds_run(path: &Path) -> bool {
    [config::FILE, log::FILE].iter().any(|file| path.join(file).exists())
}
