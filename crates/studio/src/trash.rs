//! Deleting what is in the folder of runs: all at once for whoever looks, and nothing outside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where things are while they are being deleted.
#[derive(Debug)]
pub(crate) struct Trash {
    away: PathBuf,
    /// Nothing else is deleted than what is in this folder.
    inside: PathBuf,
}

impl Trash {
    /// The trash in the folder `away`, on the file system of `inside`, within which things are deleted. It is emptied: a studio that was
    /// killed may not have finished.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn open(away: PathBuf, inside: &Path) -> Result<Self> {
        let failed = || format!("cannot use {}", away.display());
        fs::create_dir_all(&away).with_context(failed)?;
        for entry in fs::read_dir(&away).with_context(failed)?.flatten() {
            remove(&entry.path()).with_context(failed)?;
        }
        Ok(Self { away, inside: inside.to_owned() })
    }

    /// Moves something to where nobody looks for it; it is whole until then, and gone afterwards. Returns where it is.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub(crate) fn put_away(&self, path: &Path) -> Result<PathBuf> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).context("the system gives no random numbers for a name")?;
        let away = self.away.join(hex::encode(random));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        fs::rename(path, &away).with_context(|| format!("{name} cannot be deleted"))?;
        Ok(away)
    }

    /// Deletes a file, or a folder with all that is in it; of links only themselves.
    ///
    /// # Errors
    /// When it is not in the folder of runs, or cannot be deleted.
    pub(crate) fn delete(&self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let failed = || format!("{name} cannot be deleted");
        let folder = fs::canonicalize(path.parent().unwrap_or(path)).with_context(failed)?;
        ensure!(folder.starts_with(&self.inside), "{name} is outside the folder of runs");
        remove(path).with_context(failed)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_within_is_deleted_and_of_links_themselves() {
        let temporary = tempfile::tempdir().unwrap();
        let (runs, other) = (temporary.path().join("runs"), temporary.path().join("other"));
        for folder in [&runs.join("a/b"), &other] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("file"), "").unwrap();
        }
        let runs = fs::canonicalize(runs).unwrap();
        std::os::unix::fs::symlink(&other, runs.join("link")).unwrap();
        let open = || Trash::open(runs.join(".studio/deleted"), &runs).unwrap();
        let trash = open();
        for name in ["a", "link"] {
            let away = trash.put_away(&runs.join(name)).unwrap();
            assert!(!runs.join(name).exists() && fs::symlink_metadata(&away).is_ok());
            trash.delete(&away).unwrap();
            assert!(fs::symlink_metadata(&away).is_err());
        }
        assert!(trash.delete(&other.join("file")).unwrap_err().to_string().contains("outside the folder of runs"));
        assert!(trash.put_away(&runs.join("missing")).is_err());
        assert!(other.join("file").exists());
        // As after a kill.
        fs::write(runs.join(".studio/deleted/left"), "").unwrap();
        open();
        assert!(!runs.join(".studio/deleted/left").exists());
    }
}
