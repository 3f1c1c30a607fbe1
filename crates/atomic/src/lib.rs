//! Files and folders that are either complete or not there.
//!
//! ```
//! use std::io::Write;
//!
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("log.json");
//! atomic::replace_file(&path, |file, _| Ok(file.write_all(b"{}")?))?;
//! assert_eq!(std::fs::read(&path)?, b"{}");
//! # anyhow::Ok(())
//! ```
//!
//! Invariant: knows nothing of what is in a file.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How the name of what is not complete yet begins, beside its place; a killed process may leave some.
pub const PARTIAL: &str = ".partial-";

/// Writes a file with `write` under a temporary name beside `path`, flushes it to the disk and gives it its name.
/// A reader, or a crash at any moment, sees the old file or the new one, never a part.
///
/// # Errors
/// When the folder is not writable, the disk is full, or `write` fails; the temporary file is removed then.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut File, &Path) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("cannot write {}", path.display());
    let mut temporary = tempfile::Builder::new()
        .prefix(PARTIAL)
        // Ordinary permissions: the process's umask still applies.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(failed)?;
    let hidden = temporary.path().to_owned();
    let permissions = temporary.as_file().metadata().with_context(failed)?.permissions();
    write(temporary.as_file_mut(), &hidden).with_context(failed)?;
    let finish = || -> io::Result<()> {
        // The writer may have put another file in its place, so it is opened anew for the flush.
        let file = File::open(&hidden)?;
        file.set_permissions(permissions)?;
        file.sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    finish().with_context(failed)
}

/// The same for contents that are already in memory.
///
/// # Errors
/// As [`replace_file`].
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    replace_file(path, |file, _| Ok(file.write_all(contents.as_ref())?))
}

/// Fills a new folder with `fill` under a temporary name beside `path`, then gives it its name. Folders above it are made.
///
/// # Errors
/// When the folder above is not writable, `path` is taken by then, or `fill` fails (its error is returned as it is); the
/// temporary folder is removed then.
pub fn new_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("cannot write {}", path.display());
    fs::create_dir_all(parent).with_context(failed)?;
    let mut builder = tempfile::Builder::new();
    // Ordinary permissions: the process's umask still applies.
    builder.prefix(PARTIAL).permissions(Permissions::from_mode(0o777));
    let temporary = builder.tempdir_in(parent).with_context(failed)?;
    fill(temporary.path())?;
    fs::rename(temporary.path(), path).with_context(failed)?;
    // There is nothing left to remove.
    let _renamed: PathBuf = temporary.keep();
    File::open(parent).and_then(|parent| parent.sync_all()).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_whole_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("above/new");
        let failed = new_folder(&path, |new| {
            fs::write(new.join("half"), "")?;
            anyhow::bail!("stopped")
        });
        assert_eq!(format!("{:#}", failed.unwrap_err()), "stopped");
        assert_eq!(fs::read_dir(folder.path().join("above")).unwrap().count(), 0);
        new_folder(&path, |new| write(&new.join("file"), "whole")).unwrap();
        assert_eq!(fs::read(path.join("file")).unwrap(), b"whole");
        let taken = new_folder(&path, |_| Ok(())).unwrap_err();
        assert!(format!("{taken:#}").starts_with(&format!("cannot write {}", path.display())));
        assert_eq!(fs::read(path.join("file")).unwrap(), b"whole");
    }

    #[test]
    fn a_failure_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, "old").unwrap();
        let failed = replace_file(&path, |file, _| {
            file.write_all(b"half of the ne")?;
            anyhow::bail!("stopped")
        });
        assert_eq!(format!("{:#}", failed.unwrap_err()), format!("cannot write {}: stopped", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write(&path, "new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write(Path::new("/no/such/folder/file"), "").unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/folder/file"));
    }
}
