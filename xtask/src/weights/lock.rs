//! The record of what was obtained, `weights-lock.json` in the model's folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What is known of each file that was fetched, by its path.
#[derive(Debug, Default)]
pub(super) struct Lock {
    path: PathBuf,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) size: u64,
    pub(super) sha256: String,
    pub(super) source: String,
}

impl Lock {
    /// The record in the folder `dir`; empty where there is none.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("weights-lock.json");
        let files = match json::text(&path) {
            Ok(text) => json::parse(&text)
                .with_context(|| format!("{} is damaged: remove it and verify or fetch again", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { path, files })
    }

    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.files.get(path)
    }

    /// Enters a file and writes the record, whole or not at all.
    pub(super) fn enter(&mut self, path: &str, entry: Entry) -> anyhow::Result<()> {
        self.files.insert(path.to_owned(), entry);
        let partial = self.path.with_extension("json.partial");
        let write = || -> anyhow::Result<()> {
            let mut file = fs::File::create(&partial)?;
            serde_json::to_writer_pretty(&mut file, &self.files)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            Ok(fs::rename(&partial, &self.path)?)
        };
        write().with_context(|| format!("{} cannot be written", self.path.display()))
    }
}
