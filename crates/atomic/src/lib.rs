//! Files that are either complete or not there.
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

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file with `write` under a temporary name beside `path`, flushes it to the disk and gives it its name.
/// A reader, or a crash at any moment, sees the old file or the new one, never a part.
///
/// # Errors
/// When the folder is not writable, the disk is full, or `write` fails; the temporary file is removed then.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut File, &Path) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("cannot write {}", path.display());
    let mut temporary = tempfile::Builder::new()
        .prefix(".partial-")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
