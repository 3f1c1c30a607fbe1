//! Files that are on this machine: their check, and the record of what was obtained, `weights-lock.json` in the model's
//! folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::manifest::ModelFile;

/// What is known of each file that was obtained, by its path.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
    pub(crate) files: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    pub(crate) sha256: String,
    pub(crate) source: String,
}

impl Record {
    /// The record in the folder `dir`; empty where there is none.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("weights-lock.json");
        let files = match json::text(&path) {
            Ok(text) => json::parse(&text)
                .with_context(|| format!("{} is damaged: remove it and verify or download again", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { path, files })
    }

    pub(crate) fn enter(&mut self, path: &str, entry: Entry) -> Result<()> {
        self.files.insert(path.to_owned(), entry);
        atomic::replace_file(&self.path, |file, _| {
            serde_json::to_writer_pretty(&mut *file, &self.files)?;
            Ok(file.write_all(b"\n")?)
        })
    }
}

/// The SHA-256 of a file's bytes.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// The same in lower-case hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_hex(path: &Path) -> io::Result<String> {
    Ok(sha256(path)?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether the file at `path` is the one that `file` describes; its hash where it is, the difference where not.
pub(crate) fn check(path: &Path, file: &ModelFile, known: Option<&str>) -> Result<String> {
    let cannot = || format!("{} cannot be read", path.display());
    let length = fs::metadata(path).with_context(cannot)?.len();
    if let Some(size) = file.size {
        ensure!(length == size, "{} has {length} bytes, not {size}", path.display());
    }
    if file.path.ends_with(".json") {
        let text = limits::read(path).with_context(cannot)?;
        // A login page or an error page under the name of a config would be found out much later.
        if json::parse::<serde::de::IgnoredAny>(&text).is_err() {
            bail!("{} is not JSON", path.display());
        }
    }
    let found = sha256_hex(path).with_context(cannot)?;
    if let Some(known) = known {
        ensure!(found == known, "{} has sha256 {found}, not {known}", path.display());
    }
    Ok(found)
}

/// Puts the good file `from` at `target`: as a second name where one disk holds both, else as a copy.
pub(crate) fn place(from: &Path, target: &Path) -> Result<&'static str> {
    let from: PathBuf = from.canonicalize().with_context(|| format!("{} cannot be read", from.display()))?;
    let temporary = target.with_added_extension("copy.partial");
    let cannot = || format!("{} cannot be written from {}", target.display(), from.display());
    let _ = fs::remove_file(&temporary);
    let how = if fs::hard_link(&from, &temporary).is_ok() {
        "linked"
    } else {
        fs::copy(&from, &temporary).inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(cannot)?;
        "copied"
    };
    fs::rename(&temporary, target).with_context(cannot)?;
    Ok(how)
}

#[cfg(test)]
mod tests {
    /// The one-block example of FIPS 180-2.
    #[test]
    fn sha256_of_the_standards_example() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(super::sha256_hex(file.path()).unwrap(), hex);
    }
}
