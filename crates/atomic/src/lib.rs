//! Files and folders that are either complete or absent.
//!
//! ```
//! use std::io::Write;
//!
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("log.json");
//! atomic::replace_file(&path, |file, _| Ok(file.write_all(b"{}")?))?;
//! assert_eq!(std::fs::read(&path)?, b"{}");
//! assert!(atomic::new_file(&path, |_, _| Ok(())).is_err(), "there is one already");
//! assert!(atomic::write(std::path::Path::new("/dev/null"), "").is_err(), "no file");
//! # anyhow::Ok(())
//! ```
//!
//! What a command writes to a path that its user has named is new ([`ensure_new`]) or replaces an earlier file of this
//! program's ([`ensure_ours`]).
//!
//! Invariants: knows nothing of what is in a file; writes regular files and folders only, never through a symbolic link or to
//! a device or a pipe. Unfinished files have a hidden name beside their place and are locked by the process that writes them;
//! those of a killed process are removed before the next process writes its first file into the same folder.

mod output;
mod partial;

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

pub use output::{ensure_new, ensure_ours};
pub use partial::{PARTIAL, discard_unfinished};

use partial::Unfinished;

/// Writes a file with `write` under a temporary name beside `path`, flushes it to the disk and gives it its name.
/// A reader, or a crash at any moment, sees the old file or the new one, never a part.
///
/// # Errors
/// When `path` exists and is not a regular file, the folder is not writable, the disk is full, or `write` fails; the
/// temporary file is removed then.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut File, &Path) -> Result<()>) -> Result<()> {
    output::ensure_regular(path)?;
    file(path, write, |temporary| temporary.persist(path))
}

/// The same where `path` must not exist; a file that another process writes there meanwhile is not replaced either.
///
/// # Errors
/// As [`replace_file`], and when `path` is taken.
pub fn new_file(path: &Path, write: impl FnOnce(&mut File, &Path) -> Result<()>) -> Result<()> {
    ensure_new(path)?;
    file(path, write, |temporary| temporary.persist_noclobber(path))
}

fn file(
    path: &Path,
    write: impl FnOnce(&mut File, &Path) -> Result<()>,
    rename: impl FnOnce(tempfile::NamedTempFile) -> Result<File, tempfile::PersistError>,
) -> Result<()> {
    let folder = parent(path);
    let failed = || format!("cannot write {}", path.display());
    // Ordinary permissions: the process's umask still applies.
    let create = || partial::builder().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    let begin = || Unfinished::begin(folder, create, |temporary| temporary.as_file().try_clone());
    let (mut temporary, unfinished) = begin().with_context(failed)?;
    let hidden = temporary.path().to_owned();
    let permissions = temporary.as_file().metadata().with_context(failed)?.permissions();
    write(temporary.as_file_mut(), &hidden).with_context(failed)?;
    let finish = || -> io::Result<()> {
        // The writer may have replaced the file, so it is opened again for the flush.
        let file = File::open(&hidden)?;
        file.set_permissions(permissions)?;
        file.sync_all()?;
        unfinished.finish(|| rename(temporary)).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    finish().with_context(failed)
}

/// [`replace_file`] for contents that are already in memory.
///
/// # Errors
/// As [`replace_file`].
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    replace_file(path, |file, _| Ok(file.write_all(contents.as_ref())?))
}

/// Opens a file to read it and to append to it; created if missing.
///
/// # Errors
/// When `path` exists and is not a regular file, or is not writable.
pub fn append(path: &Path) -> Result<File> {
    output::ensure_regular(path)?;
    let opened = File::options().read(true).append(true).create(true).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))
}

/// Fills a new folder with `fill` under a temporary name beside `path`, then renames it. Folders above it are created.
///
/// # Errors
/// When the folder above is not writable, `path` exists and not an empty folder, or `fill` fails (its error is returned
/// as it is); the temporary folder is removed then.
pub fn new_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let free = match fs::symlink_metadata(path) {
        Ok(found) => found.is_dir() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()),
        Err(_) => true,
    };
    ensure!(free, "cannot write {}: it exists already; remove it, or choose another name", path.display());
    folder(path, fill, |hidden| fs::rename(hidden, path))
}

/// The same where there may be a folder, which the complete new one replaces in one step: whenever the process ends, one of
/// them exists.
///
/// # Errors
/// As [`new_folder`], and when `path` is not a folder.
pub fn replace_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let is_folder = fs::symlink_metadata(path).map_or(true, |found| found.is_dir());
    ensure!(is_folder, "cannot write {}: it is not a folder; remove it, or choose another name", path.display());
    folder(path, fill, |hidden| match renameat_with(CWD, hidden, CWD, path, RenameFlags::EXCHANGE) {
        // The old one has the temporary name now, and is removed.
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => fs::rename(hidden, path),
        // Some file systems cannot exchange names.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            let old = tempfile::TempDir::with_prefix_in(PARTIAL, parent(path))?;
            fs::rename(path, old.path())?;
            fs::rename(hidden, path)
        }
        Err(error) => Err(error.into()),
    })
}

fn folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
    rename: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<()> {
    let parent = parent(path);
    let failed = || format!("cannot write {}", path.display());
    fs::create_dir_all(parent).with_context(failed)?;
    let create = || partial::builder().permissions(Permissions::from_mode(0o777)).tempdir_in(parent);
    let begin = || Unfinished::begin(parent, create, |temporary| File::open(temporary.path()));
    let (temporary, unfinished) = begin().with_context(failed)?;
    fill(temporary.path())?;
    unfinished.finish(|| rename(temporary.path())).with_context(failed)?;
    // Nothing, or what was replaced.
    drop(temporary);
    File::open(parent).and_then(|parent| parent.sync_all()).with_context(failed)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
