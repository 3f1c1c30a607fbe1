//! The fixtures, as folders.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer")
}

/// CLIP's merges and special tokens, which are part of the crate.
pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

pub(crate) fn goldens() -> Value {
    serde_json::from_slice(&fs::read(fixtures().join("goldens.json")).unwrap()).unwrap()
}

/// A folder with the files of several fixtures and of the crate's data; a later one's file wins.
pub(crate) fn join(folders: &[&str]) -> TempDir {
    let joined = tempfile::tempdir().unwrap();
    for folder in folders {
        let roots = [fixtures(), data()].map(|root| root.join(folder)).into_iter().filter(|root| root.exists());
        for entry in roots.flat_map(|root| fs::read_dir(root).unwrap()) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            if path.is_file() && name != "goldens.json" {
                fs::copy(&path, joined.path().join(name)).unwrap();
            }
        }
    }
    joined
}

pub(crate) fn ids(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

/// A golden's ids have no padding.
pub(crate) fn padded(value: &Value, pad: i64) -> Vec<i64> {
    let mut ids = ids(value);
    ids.resize(77, pad);
    ids
}

pub(crate) fn rows<'a>(goldens: &'a Value, name: &str) -> &'a [Value] {
    goldens[name].as_array().unwrap()
}
