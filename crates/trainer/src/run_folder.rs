//! A run's folder: held by one process at a time, with its configuration and its log.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

const LOCK: &str = ".lock";
const CONFIG: &str = "config.json";
const LOG: &str = "log.jsonl";

/// The folder of a run, locked until this is dropped or the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder of a new run.
    ///
    /// # Errors
    /// When it cannot be made, is in use, or holds a run already.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        let folder = Self::lock(path)?;
        if path.join(CONFIG).exists() {
            bail!("{} holds a run already: go on with it by --resume, or give another --out", path.display());
        }
        Ok(folder)
    }

    /// Takes the folder of a run that is to go on.
    ///
    /// # Errors
    /// When there is no run in it, or it is in use.
    pub(crate) fn resume(path: &Path) -> Result<Self> {
        if !path.join(CONFIG).exists() {
            bail!("{} holds no run to go on with; leave out --resume to start one", path.display());
        }
        Self::lock(path)
    }

    fn lock(path: &Path) -> Result<Self> {
        let file = path.join(LOCK);
        let failed = || format!("cannot lock the folder {}", path.display());
        let mut options = File::options();
        let mut lock = options.read(true).write(true).create(true).truncate(false).open(&file).with_context(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                lock.read_to_string(&mut process).with_context(failed)?;
                bail!(
                    "{} is in use by another run (process {}); wait for it or give another --out",
                    path.display(),
                    process.trim()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        lock.set_len(0).with_context(failed)?;
        write!(lock, "{}", std::process::id()).with_context(failed)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_config(&self, record: &Value) -> Result<()> {
        atomic::write(&self.path.join(CONFIG), serde_json::to_vec_pretty(record)?)
    }

    /// The values that differ between the run's `config.json` and `record`, as sentences.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn differences(&self, record: &Value) -> Result<Vec<String>> {
        let mut found = Vec::new();
        compare("", &weights::read_config(&self.path.join(CONFIG))?, record, &mut found);
        Ok(found)
    }

    /// The entries of `log.jsonl`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn entries(&self) -> Result<Vec<Value>> {
        read_log(&self.path.join(LOG))
    }

    /// Opens `log.jsonl` to go on after its entry of the given step; what a killed run has logged beyond is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn log(&self, after_step: u64) -> Result<Log> {
        let path = self.path.join(LOG);
        let kept: String = self
            .entries()?
            .iter()
            .filter(|entry| entry["step"].as_u64().is_some_and(|step| step <= after_step))
            .map(|entry| format!("{entry}\n"))
            .collect();
        atomic::write(&path, kept)?;
        let file =
            File::options().append(true).open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Log { path, file })
    }
}

/// An open log: one JSON object a line.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Adds an entry, in a single write.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn add(&mut self, entry: &Value) -> Result<()> {
        let line = format!("{entry}\n");
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// The whole entries of a log; a last line that was torn by a crash is left out, and a missing file is empty.
fn read_log(path: &Path) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// Collects the paths at which two values differ.
fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
            }
        }
        _ if old != new => found.push(format!("{path} was {old}, is {new}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_folder_has_one_run_and_one_owner() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("run");
        assert!(RunFolder::resume(&path).unwrap_err().to_string().contains("no run to go on with"));
        let folder = RunFolder::create(&path).unwrap();
        folder.write_config(&json!({"seed": 1})).unwrap();
        let error = RunFolder::resume(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by another run (process {})", std::process::id())), "{error}");
        drop(folder);
        assert!(RunFolder::create(&path).unwrap_err().to_string().contains("holds a run already"));
        assert!(RunFolder::resume(&path).is_ok());
    }

    #[test]
    fn differences_are_named_by_path() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(temporary.path()).unwrap();
        folder.write_config(&json!({"unet": {"steps": 5, "lr": 0.1}, "seed": 1})).unwrap();
        let differences = folder.differences(&json!({"unet": {"steps": 6, "lr": 0.1}, "seed": 1, "new": true}));
        assert_eq!(differences.unwrap(), ["new was null, is true", "unet.steps was 5, is 6"]);
    }

    #[test]
    fn a_log_goes_on_after_the_checkpoint() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(temporary.path()).unwrap();
        let mut log = folder.log(0).unwrap();
        for step in 1..=5 {
            log.add(&json!({ "step": step })).unwrap();
        }
        let path = temporary.path().join(LOG);
        let torn = fs::read_to_string(&path).unwrap() + "{\"step\": 6, \"lo";
        fs::write(&path, torn).unwrap();
        let mut log = folder.log(3).unwrap();
        log.add(&json!({ "step": 4, "again": true })).unwrap();
        let steps: Vec<u64> = read_log(&path).unwrap().iter().map(|entry| entry["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }
}
