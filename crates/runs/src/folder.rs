//! The folder of a run.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::layout::{self, CONFIG};
use crate::saved_config::{SavedConfig, VERSIONS, holds_run};
use crate::{Lock, lock};

/// A run's folder, locked for this process until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held as long as this is.
    lock: Lock,
}

impl RunFolder {
    /// The folder of a new run, created if missing.
    ///
    /// # Errors
    /// As [`vacant`], or when another process works in it, or it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        Self::create_beside(path, &[])
    }

    /// The same where `expected` files were put into the folder before.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub fn create_beside(path: &Path, expected: &[&str]) -> Result<Self> {
        // Not even a lock goes into somebody else's folder.
        vacant(path, expected)?;
        fs::create_dir_all(path).with_context(|| format!("cannot create the run folder {}", path.display()))?;
        let lock = Lock::take(path)?;
        // Another process may have been faster.
        vacant(path, expected)?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// The folder of a run that was started before.
    ///
    /// # Errors
    /// When there is no run in it, or another process works in it.
    pub fn resume(path: &Path) -> Result<Self> {
        if !path.join(layout::CONFIG).exists() {
            bail!("there is no run in {} to resume; leave out --resume to start one", path.display());
        }
        Ok(Self { path: path.to_owned(), lock: Lock::take(path)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `config.json`: the keys of `config`, which must be a struct or a map, and last `versions`, (name, version)
    /// of whatever the numbers depend on.
    ///
    /// # Errors
    /// When `config` has no keys or one called `versions`, or the file cannot be written.
    pub fn write_config<'a>(
        &self,
        config: &impl Serialize,
        versions: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let mut value = serde_json::to_value(config).context("the configuration cannot be written as JSON")?;
        let keys = value.as_object_mut().context("a run's configuration must have named values")?;
        ensure!(!keys.contains_key(VERSIONS), "a run's configuration must not have a value called {VERSIONS}");
        let versions: Map<String, Value> =
            versions.into_iter().map(|(name, version)| (name.to_owned(), version.into())).collect();
        keys.insert(VERSIONS.to_owned(), Value::Object(versions));
        let mut text = serde_json::to_string_pretty(&value)?;
        text.push('\n');
        atomic::write(&self.path().join(CONFIG), text)
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// As [`SavedConfig::read`].
    pub fn saved_config(&self) -> Result<SavedConfig> {
        SavedConfig::read(self.path())
    }

    /// What the user should know of the lock; see [`Lock::note`].
    pub fn note(&self) -> Option<&str> {
        self.lock.note()
    }
}

/// Makes sure that a new run may have a folder: it is not there, or empty but for files that are `expected` and what
/// killed processes leave. A link counts as what it leads to.
///
/// # Errors
/// Says what is in the folder: a run, or something that is not of this program; or which process works in it.
pub fn vacant(path: &Path, expected: &[&str]) -> Result<()> {
    let Some(name) = foreign(path, expected)? else { return Ok(()) };
    if holds_run(path) {
        // Whoever is at work in it is named.
        drop(Lock::take(path)?);
        bail!("{} already holds a run; resume it with --resume, or choose another --out", path.display());
    }
    bail!("{} is not empty (it has {name:?}) and does not hold a run: choose a new folder for --out", path.display())
}

/// The first name in a folder, in order, that is not `expected` and not what killed processes leave.
pub(crate) fn foreign(path: &Path, expected: &[&str]) -> Result<Option<String>> {
    let failed = || format!("cannot use {} as --out", path.display());
    ensure!(!path.to_string_lossy().contains("://"), "{}: only `table` and `train --batch` write to a URL", failed());
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotADirectory && path.exists() => {
            bail!("{}: it is not a folder", failed())
        }
        // What is above it is none; so says whoever makes it.
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(None),
        entries => entries.with_context(failed)?,
    };
    let mut first: Option<String> = None;
    for entry in entries {
        let name = entry.with_context(failed)?.file_name().to_string_lossy().into_owned();
        let ours = name == lock::FILE || name.starts_with(atomic::PARTIAL) || expected.contains(&name.as_str());
        if !ours && first.as_ref().is_none_or(|first| name < *first) {
            first = Some(name);
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_takes_no_folder_that_has_something_else() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("folder");
        let says = |expected: &[&str], words: &str| {
            let error = format!("{:#}", RunFolder::create_beside(&path, expected).unwrap_err());
            assert!(error.contains(words), "{error}");
        };
        // As after a process that was killed at once, and then with what was expected.
        drop(RunFolder::create(&path).unwrap());
        fs::create_dir(path.join(format!("{}x", atomic::PARTIAL))).unwrap();
        drop(RunFolder::create(&path).unwrap());
        fs::write(path.join("start"), "").unwrap();
        drop(RunFolder::create_beside(&path, &["start"]).unwrap());
        says(&[], r#"folder is not empty (it has "start") and does not hold a run"#);
        fs::remove_file(path.join("start")).unwrap();

        // A model's configuration is not a run's.
        fs::write(path.join("config.json"), r#"{"_class_name": "UNet2DConditionModel"}"#).unwrap();
        fs::remove_file(path.join(lock::FILE)).unwrap();
        says(&[], r#"(it has "config.json")"#);
        // Nothing was put there, not even a lock, and a link changes nothing.
        assert!(!path.join(lock::FILE).exists());
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(RunFolder::create(&link).is_err());
        fs::remove_file(path.join("config.json")).unwrap();
        RunFolder::create(&link).unwrap().write_config(&json!({}), []).unwrap();
        says(&[], "already holds a run");

        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let error = format!("{:#}", RunFolder::create(&file).unwrap_err());
        assert!(error.ends_with("it is not a folder"), "{error}");
    }
}
