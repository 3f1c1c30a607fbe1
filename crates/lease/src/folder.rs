//! Leases in a folder that machines share.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::holder::EVERY;
use crate::{Entry, Holder, Place};

const PREFIX: &str = "lease-";
const SUFFIX: &str = ".json";

/// Leases as files `lease-N.json`.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Made if missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    fn file(&self, number: u64) -> PathBuf {
        self.0.join(format!("{PREFIX}{number}{SUFFIX}"))
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let failed = || format!("cannot read {}", self.0.display());
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.0).with_context(failed)? {
            let name = entry.with_context(failed)?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse::<u64>().ok());
            numbers.extend(number);
        }
        Ok(numbers)
    }
}

impl Place for Folder {
    fn last(&self) -> Result<Option<Entry>> {
        loop {
            let Some(number) = self.numbers()?.into_iter().max() else { return Ok(None) };
            let path = self.file(number);
            let failed = || format!("cannot read {}", path.display());
            let found = match fs::metadata(&path) {
                // Another worker has removed it, for there is a higher one.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found.with_context(failed)?,
            };
            let written = found.modified().with_context(failed)?;
            let now = tempfile::tempfile_in(&self.0).and_then(|probe| probe.metadata()?.modified());
            let now = now.with_context(|| format!("cannot write into {}", self.0.display()))?;
            let holder = match json::read(&path, "a lease") {
                Err(_) if !path.exists() => continue,
                // Where it cannot be created whole, it may be found before it says anything.
                Err(_) if found.len() == 0 => Holder::unknown(EVERY),
                holder => holder?,
            };
            return Ok(Some(Entry { number, holder, age: now.duration_since(written).unwrap_or(Duration::ZERO) }));
        }
    }

    fn create(&self, number: u64, holder: &Holder) -> Result<bool> {
        let path = self.file(number);
        let text = serde_json::to_vec(holder)?;
        let whole = atomic::new_file(&path, |file, _| Ok(file.write_all(&text)?));
        if whole.is_ok() || path.exists() {
            return Ok(whole.is_ok());
        }
        // Buckets that are mounted as folders know no links.
        match File::create_new(&path).and_then(|mut file| file.write_all(&text)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            written => written.map(|()| true).with_context(|| format!("cannot write {}", path.display())),
        }
    }

    fn replace(&self, number: u64, holder: &Holder) -> Result<()> {
        atomic::write(&self.file(number), serde_json::to_vec(holder)?)
    }

    fn remove_below(&self, number: u64) {
        for lower in self.numbers().unwrap_or_default().into_iter().filter(|lower| *lower < number) {
            let _ = fs::remove_file(self.file(lower));
        }
    }
}
