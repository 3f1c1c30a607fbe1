//! A folder in which one process at a time works.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

const LOCK: &str = ".lock";

/// A folder that is this process's until this is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct Lock {
    /// The operating system's lock goes with the open file; that the file remains means nothing.
    file: File,
}

impl Lock {
    /// Takes a folder, which must exist.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written to.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let failed = || format!("cannot lock {}", path.display());
        // Not emptied before it is ours: until then another process's number stands in it.
        let options = File::options().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&path).with_context(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process = fs::read_to_string(&path).unwrap_or_default();
                let process =
                    process.trim().parse::<u32>().map_or("another process".to_owned(), |id| format!("process {id}"));
                bail!("folder {} is in use by {process}; wait for it, or choose another --out", folder.display());
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).with_context(failed)?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Only a courtesy to readers: the lock itself ends when the file is closed.
        let _ = self.file.set_len(0);
    }
}
