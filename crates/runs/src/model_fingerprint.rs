//! The base model of a run: what it is, wherever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use fingerprint::Fingerprints;
use serde::{Deserialize, Serialize};

use crate::read::entries;

/// A base model by its contents. Two places hold the same model when all files that matter are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFingerprint {
    /// What its folder or file was called when the run started.
    pub name: String,
    /// The SHA-256 of each file that decides what the model computes, by the file's name within the model.
    pub sha256: BTreeMap<String, String>,
}

/// Files that are named at most when they differ.
const MOST_NAMED: usize = 3;

impl ModelFingerprint {
    /// The model at `path` by its `files`, each with its name within the model. They are read, unless their fingerprints are
    /// remembered.
    ///
    /// # Errors
    /// When a file is absent or cannot be read.
    pub fn of(path: &Path, files: impl IntoIterator<Item = (String, PathBuf)>) -> Result<Self> {
        let fingerprints = Fingerprints::of_user();
        let files = files.into_iter().map(|(name, file)| Ok((name, fingerprints.of(&file)?)));
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, sha256: files.collect::<Result<_>>()? })
    }

    /// The weights in a model's folder, of which a CLIP has one file.
    ///
    /// # Errors
    /// When there are none, or they cannot be read.
    pub fn of_weights(folder: &Path) -> Result<Self> {
        let weights = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
        let named = |path: PathBuf| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path);
        let found = Self::of(folder, entries(folder)?.into_iter().filter(weights).map(named))?;
        ensure!(!found.sha256.is_empty(), "{} has no weights, no file that ends in .safetensors", folder.display());
        Ok(found)
    }

    /// Whether the two have a file of the same contents.
    pub fn shares_file(&self, other: &Self) -> bool {
        self.sha256.values().any(|sha256| other.sha256.values().any(|theirs| theirs == sha256))
    }

    /// Makes sure that `found` in the folder `model` is this model, which the run in `run` started with.
    ///
    /// # Errors
    /// Names the files that differ.
    pub fn check(&self, found: &Self, model: &Path, run: &Path) -> Result<()> {
        let names: BTreeSet<&String> = self.sha256.keys().chain(found.sha256.keys()).collect();
        let differences = names.into_iter().filter_map(|name| match (self.sha256.get(name), found.sha256.get(name)) {
            (Some(then), Some(now)) if then == now => None,
            (Some(_), Some(_)) => Some(format!("{name} has other contents")),
            (Some(_), None) => Some(format!("{name} is missing")),
            (None, _) => Some(format!("{name} was not there")),
        });
        let differences: Vec<String> = differences.collect();
        if differences.is_empty() {
            return Ok(());
        }
        let more = differences.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        bail!(
            "the model in {} is not the base model of the run in {}: {}{more}; name that model with --model",
            model.display(),
            run.display(),
            differences[..differences.len().min(MOST_NAMED)].join(", ")
        )
    }

    /// A short name of the contents, 16 hexadecimal digits.
    pub fn hash(&self) -> String {
        let lines: String = self.sha256.iter().map(|(name, sha256)| format!("{sha256}  {name}\n")).collect();
        fingerprint::of_bytes(lines)[..16].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_are_named_and_their_place_is_not_looked_at() {
        let model = |files: &[(&str, &str)]| ModelFingerprint {
            name: format!("{files:?}"),
            sha256: files.iter().map(|(name, sha256)| ((*name).to_owned(), (*sha256).to_owned())).collect(),
        };
        let ours = model(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
        let says =
            |found: &ModelFingerprint| ours.check(found, "place".as_ref(), "run".as_ref()).unwrap_err().to_string();
        ours.check(&ModelFingerprint { name: "other".to_owned(), ..ours.clone() }, "place".as_ref(), "run".as_ref())
            .unwrap();
        let text = says(&model(&[("a", "1"), ("b", "9"), ("d", "4"), ("e", "5")]));
        let differences = "the run in run: b has other contents, c is missing, e was not there; name";
        assert!(text.starts_with("the model in place ") && text.contains(differences), "{text}");
        let text = says(&model(&[]));
        assert!(text.contains("a is missing, b is missing, c is missing, and 1 more;"), "{text}");
        assert_ne!(ours.hash(), model(&[("a", "1")]).hash());
    }
}
