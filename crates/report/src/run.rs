//! What is in the folder of a run, read without demands: what is not there is left out.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A run's folder.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) folder: PathBuf,
    /// `config` of its config.json.
    pub(crate) config: Value,
    /// Its photos: `file` and `sha256`.
    pub(crate) photos: Vec<Value>,
    pub(crate) versions: Value,
}

impl Run {
    /// # Errors
    /// When `folder` has no readable config.json.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let value = json(&path)?.with_context(|| {
            format!("{} is not the folder of a training run: it has no config.json", folder.display())
        })?;
        let config = value.get("config").filter(|config| config.is_object()).cloned().with_context(|| {
            format!("{} is not of a training run of this version: it has no object called config", path.display())
        })?;
        let photos = value.get("photos").and_then(Value::as_array).cloned().unwrap_or_default();
        let versions = value.get("versions").cloned().unwrap_or_default();
        Ok(Self { folder: folder.to_owned(), config, photos, versions })
    }

    /// The name of its folder.
    pub(crate) fn name(&self) -> String {
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A text of the configuration, by its path with dots; empty where there is none.
    pub(crate) fn text(&self, key: &str) -> &str {
        key.split('.').try_fold(&self.config, |value, key| value.get(key)).and_then(Value::as_str).unwrap_or_default()
    }

    /// The name of the folder with the photos; empty for a single photo, whose name says little.
    pub(crate) fn subject(&self) -> String {
        let name = if self.single_photo() { None } else { Path::new(self.text("concept")).file_name() };
        name.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether a file was named in place of a folder.
    fn single_photo(&self) -> bool {
        let named = Path::new(self.text("concept")).file_name();
        matches!(&self.photos[..], [only] if named.is_some_and(|name| name == text(only, "file")))
    }

    /// The first photo that is still where it was, and what it was: of the same hash, so that no record leads to another
    /// file.
    pub(crate) fn photo(&self) -> Option<PathBuf> {
        let concept = Path::new(self.text("concept"));
        let folder = if self.single_photo() { concept.parent().unwrap_or(concept) } else { concept };
        self.photos.iter().find_map(|photo| {
            let path = folder.join(photo.get("file")?.as_str()?);
            let unchanged = path.is_file() && hash(&path)? == photo.get("sha256")?.as_str()?;
            unchanged.then_some(path)
        })
    }

    /// An image of the run, by its path.
    ///
    /// # Errors
    /// When it lies outside of the run's folder, by a link, `..` or an absolute path in a record: a page, which may be
    /// shown to others, holds nothing from elsewhere on the disk.
    pub(crate) fn inside(&self, path: PathBuf) -> Result<PathBuf> {
        // What is not there is for the caller to say.
        let Ok(file) = fs::canonicalize(&path) else { return Ok(path) };
        let folder =
            fs::canonicalize(&self.folder).with_context(|| format!("cannot read {}", self.folder.display()))?;
        ensure!(
            file.starts_with(&folder),
            "{} lies outside of the run's folder {}, and a page holds only images inside it: copy it there, or remove what \
             leads to it",
            path.display(),
            self.folder.display()
        );
        Ok(path)
    }

    /// A file of the run, if it is there.
    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join(name)).filter(|path| path.is_file())
    }

    /// An image of the run, if it is there.
    ///
    /// # Errors
    /// As [`Run::inside`].
    pub(crate) fn image(&self, name: &str) -> Result<Option<PathBuf>> {
        self.file(name).map(|path| self.inside(path)).transpose()
    }

    /// A JSON file of the run, if it is there.
    pub(crate) fn json(&self, name: &str) -> Result<Option<Value>> {
        json(&self.folder.join(name))
    }

    /// The log; none before the first step.
    pub(crate) fn log(&self) -> Result<Vec<runs::Entry>> {
        if self.file("log.jsonl").is_none() { Ok(Vec::new()) } else { runs::read_log(&self.folder) }
    }

    /// The scores of each prompt set: its name and `scores.json`, sorted.
    pub(crate) fn evaluations(&self) -> Result<Vec<(String, Value)>> {
        let mut sets = Vec::new();
        for set in entries(&self.folder.join("evaluation"))? {
            if let Some(scores) = json(&set.join("scores.json"))? {
                sets.push((set.file_name().unwrap_or_default().to_string_lossy().into_owned(), scores));
            }
        }
        Ok(sets)
    }
}

/// SHA-256 of a file's bytes, in hexadecimal.
fn hash(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a folder holds, sorted by name; nothing if it is not there.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    let listing = listing.with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = listing.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// A JSON file, if it is there.
pub(crate) fn json(path: &Path) -> Result<Option<Value>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let damaged = || format!("{} is damaged; remove it or make it again", path.display());
    ::json::parse(&bytes).map(Some).with_context(damaged)
}

/// The array under a key; empty if there is none.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text under a key; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A value as people read it: numbers as in journals of runs, texts without quotation marks.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Number(number) => match number.as_f64() {
            Some(value) if number.is_f64() => number_text(value),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// Small numbers as people write learning rates.
fn number_text(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:e}") } else { value.to_string() }
}

/// `1 photo`, `2 photos`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_read_as_people_write_them() {
        let values = [json!(2e-6), json!(0.25), json!(500), json!(null), json!("a dog"), json!(["a", 1]), json!(true)];
        assert_eq!(values.map(|value| shown(&value)), ["2e-6", "0.25", "500", "none", "a dog", "a, 1", "true"]);
    }

    #[test]
    fn a_folder_without_a_run_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let says = |words: &str| {
            let error = format!("{:#}", Run::open(folder.path()).unwrap_err());
            assert!(error.contains(words) && error.contains(&folder.path().display().to_string()), "{error}");
        };
        says("is not the folder of a training run");
        let write = |text: &str| fs::write(folder.path().join("config.json"), text).unwrap();
        write("{\"config\": ");
        says("config.json is damaged");
        write(r#"{"learning_rate": 1}"#);
        says("not of a training run of this version");
    }
}
