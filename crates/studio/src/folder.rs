//! What is in a folder, and never outside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::name::Name;

/// The names in a folder that are no hidden ones, sorted.
pub(crate) fn names(folder: &Path) -> Vec<Name> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<Name> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    names.sort();
    names
}

/// A file that is really in a folder, as no name or link may lead to another.
///
/// # Errors
/// When it is not there, or elsewhere.
pub(crate) fn inside(folder: &Path, file: &str) -> Result<PathBuf> {
    let missing = || format!("there is no file {:?}", terminal::shortened(file));
    let path = fs::canonicalize(folder.join(file)).with_context(missing)?;
    let folder = fs::canonicalize(folder).with_context(missing)?;
    ensure!(path.starts_with(&folder) && path.is_file(), missing());
    Ok(path)
}

/// The bytes of a file, or of all files in a folder; links are not followed.
pub(crate) fn bytes(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| bytes(&entry.path())).sum()
        }
        Ok(found) => found.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_leads_out_of_a_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let (folder, secret) = (temporary.path().join("folder"), temporary.path().join("secret"));
        fs::create_dir(&folder).unwrap();
        fs::write(&secret, "1234").unwrap();
        std::os::unix::fs::symlink(&secret, folder.join("link")).unwrap();
        fs::write(folder.join("file"), "123").unwrap();
        assert!(inside(&folder, "file").is_ok());
        for file in ["link", "../secret", "missing", "", ".", ".studio"] {
            assert!(inside(&folder, file).is_err(), "{file}");
        }
        let link = fs::symlink_metadata(folder.join("link")).unwrap().len();
        assert_eq!(bytes(&folder), 3 + link, "of a link its own");
    }
}
