//! A run's folder, as pages need it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use runs::{SavedRun, TrainConfig};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A run with its record.
#[derive(Debug)]
pub(crate) struct Run(SavedRun);

impl Run {
    /// # Errors
    /// As [`SavedRun::read`].
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        SavedRun::read(folder).map(Self)
    }

    pub(crate) fn saved(&self) -> &SavedRun {
        &self.0
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    pub(crate) fn config(&self) -> &TrainConfig {
        self.0.config()
    }

    /// The name of its folder.
    pub(crate) fn name(&self) -> String {
        let folder = fs::canonicalize(self.folder()).unwrap_or_else(|_| self.folder().to_owned());
        file_name(&folder)
    }

    /// The name of the folder with the photos; for a single photo, whose name says little, the class noun.
    pub(crate) fn subject(&self) -> String {
        let name = if self.single_photo() { String::new() } else { file_name(&self.config().concept) };
        if name.is_empty() { self.config().category.clone() } else { name.replace(['_', '-'], " ") }
    }

    /// Whether a file was named in place of a folder.
    fn single_photo(&self) -> bool {
        matches!(&self.0.record.photos[..], [only] if file_name(&self.config().concept) == only.file)
    }

    /// The first photo that is still where it was, and what it was: of the same hash, so that no record leads to another
    /// file.
    pub(crate) fn photo(&self) -> Option<PathBuf> {
        let concept = &self.config().concept;
        let folder = if self.single_photo() { concept.parent().unwrap_or(concept) } else { concept };
        let unchanged = self.0.record.photos.iter().map(|photo| (folder.join(&photo.file), &photo.sha256));
        unchanged
            .filter(|(path, _)| path.is_file())
            .find(|(path, sha256)| hash(path).as_ref() == Some(sha256))
            .map(|(path, _)| path)
    }

    /// An image of the run, by its path.
    ///
    /// # Errors
    /// When it lies outside of the run's folder, by a link, `..` or an absolute path in a record: a page, which may be
    /// shown to others, holds nothing from elsewhere on the disk.
    pub(crate) fn inside(&self, path: PathBuf) -> Result<PathBuf> {
        // A missing file is the caller's to report.
        let Ok(file) = fs::canonicalize(&path) else { return Ok(path) };
        let folder =
            fs::canonicalize(self.folder()).with_context(|| format!("cannot read {}", self.folder().display()))?;
        ensure!(
            file.starts_with(&folder),
            "{} lies outside of the run's folder {}, and a page holds only images inside it: copy it there, or remove what \
             leads to it",
            path.display(),
            self.folder().display()
        );
        Ok(path)
    }

    /// The log; none before the first step.
    pub(crate) fn log(&self) -> Result<Vec<runs::Entry>> {
        if self.folder().join(runs::layout::LOG).is_file() { runs::read_log(self.folder()) } else { Ok(Vec::new()) }
    }
}

/// The last part of a path for readers.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// SHA-256 of a file's bytes, in hexadecimal.
fn hash(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(hex::encode(Sha256::digest(bytes)))
}

/// All values of a record that are no objects, as people read them, under their paths with dots.
pub(crate) fn values(record: &impl Serialize) -> Result<Vec<(String, String)>> {
    Ok(flat("", &serde_json::to_value(record)?))
}

/// The values of several records by their paths, each with one text a record; "–" where one has none.
pub(crate) fn side_by_side(records: &[impl Serialize]) -> Result<Vec<(String, Vec<String>)>> {
    let all = records.iter().map(values).collect::<Result<Vec<_>>>()?;
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in all.iter().flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let value = |values: &Vec<(String, String)>, key: &String| {
        let found = values.iter().find(|(name, _)| name == key);
        found.map_or_else(|| "–".to_owned(), |(_, value)| value.clone())
    };
    Ok(keys.into_iter().map(|key| (key.clone(), all.iter().map(|one| value(one, key)).collect())).collect())
}

fn flat(path: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(parts) => {
            let inner = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            parts.iter().flat_map(|(key, value)| flat(&inner(key), value)).collect()
        }
        value => vec![(path.to_owned(), shown(value))],
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Number(number) => match number.as_f64() {
            // Small numbers as people write learning rates.
            Some(value) if number.is_f64() && value != 0.0 && value.abs() < 1e-3 => format!("{value:e}"),
            Some(value) if number.is_f64() => value.to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
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
        let nested = super::values(&json!({"a": {"b": 1, "c": {"d": "e"}}, "f": []})).unwrap();
        assert_eq!(
            nested,
            [("a.b", "1"), ("a.c.d", "e"), ("f", "")].map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_value_that_one_record_lacks_is_a_dash() {
        let rows = side_by_side(&[json!({"steps": 1}), json!({"steps": 2, "warm_up": 3})]).unwrap();
        let row = |key: &str, values: [&str; 2]| (key.to_owned(), values.map(str::to_owned).to_vec());
        assert_eq!(rows, [row("steps", ["1", "2"]), row("warm_up", ["–", "3"])]);
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
        says("its config.json has no config");
    }
}
