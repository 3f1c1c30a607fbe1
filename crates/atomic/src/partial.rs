//! Unfinished files and folders: their names, their locks, and their removal when a process has ended early.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The prefix of the name of an unfinished file or folder; a killed process may leave some.
pub const PARTIAL: &str = ".partial-";

/// The prefix of the names that this crate gives; random letters and digits follow.
const OURS: &str = ".partial-attndreambooth-";
const RANDOM: usize = 12;

/// Where a file system has no locks, a file that is older than this is abandoned.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// The unfinished files and folders of this process.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// The folders that this process has swept.
static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A builder of temporary files and folders with such names.
pub(crate) fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(OURS).rand_bytes(RANDOM);
    builder
}

/// A file or folder under its temporary name, on the list of what this process has not finished until this is dropped.
pub(crate) struct Unfinished {
    path: PathBuf,
    /// Tells other processes that it is being written.
    _lock: File,
}

impl Unfinished {
    /// Creates a temporary file or folder in `folder` by `create`, and locks what `open` opens of it.
    pub(crate) fn begin<T: AsRef<Path>>(
        folder: &Path,
        create: impl Fn() -> io::Result<T>,
        open: impl Fn(&T) -> io::Result<File>,
    ) -> io::Result<(T, Self)> {
        sweep_once(folder);
        loop {
            let (temporary, path) = {
                let mut unfinished = held(&UNFINISHED);
                let temporary = create()?;
                let path = temporary.as_ref().to_owned();
                unfinished.insert(path.clone());
                (temporary, path)
            };
            let begun = Self { _lock: open(&temporary)?, path };
            // Not all file systems have locks; there, `ABANDONED` protects it.
            let _ = begun._lock.lock();
            // Until it was locked, another process may have taken it for abandoned.
            if is_at(&begun._lock, &begun.path)? {
                return Ok((temporary, begun));
            }
        }
    }

    /// Renames it by `rename`.
    pub(crate) fn finish<T>(self, rename: impl FnOnce() -> T) -> T {
        // The lock is held so that nothing is discarded while it is renamed.
        let mut unfinished = held(&UNFINISHED);
        let renamed = rename();
        unfinished.remove(&self.path);
        drop(unfinished);
        renamed
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        held(&UNFINISHED).remove(&self.path);
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an open file or folder is the one at `path`.
fn is_at(open: &File, path: &Path) -> io::Result<bool> {
    let open = open.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes this process's unfinished files and folders. The process must end right after, by whichever thread called this: every
/// other thread that begins or finishes a file from now on waits for that.
pub fn discard_unfinished() {
    let unfinished = held(&UNFINISHED);
    for path in &*unfinished {
        // A folder may get another file while it is emptied.
        for _ in 0..5 {
            match remove(path) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                _ => break,
            }
        }
    }
    std::mem::forget(unfinished);
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Removes what ended processes have left unfinished in `folder`, once per process. What cannot be removed does no harm.
fn sweep_once(folder: &Path) {
    let Ok(folder) = folder.canonicalize() else { return };
    if held(&SWEPT).insert(folder.clone()) {
        sweep(&folder);
    }
}

fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !is_ours(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        // Held until it is gone.
        if let Some(_lock) = abandoned(&path, &metadata) {
            let removed = remove(&path).is_ok();
            tracing::info!(path = %path.display(), removed, "an earlier process left this unfinished");
        }
    }
}

/// Whether a name is one that this crate gives.
fn is_ours(name: &OsStr) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(OURS));
    random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// The lock of an abandoned file or folder.
fn abandoned(path: &Path, metadata: &Metadata) -> Option<File> {
    let file = match metadata {
        folder if folder.is_dir() => File::open(path),
        // Over the network, a lock takes the right to write.
        file if file.is_file() => File::options().read(true).write(true).open(path),
        _ => return None,
    };
    let file = file.ok()?;
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(_)) => {
            let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
            age.is_some_and(|age| age > ABANDONED).then_some(file)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_this_crate_gives_are_ours() {
        let temporary = builder().tempfile().unwrap();
        assert!(is_ours(temporary.path().file_name().unwrap()));
        for other in
            [".partial-abcdef", ".partial-attndreambooth-notes", "partial-attndreambooth-abcdefABCDEF", ".partial"]
        {
            assert!(!is_ours(OsStr::new(other)), "{other}");
        }
        assert!(OURS.starts_with(PARTIAL));
    }

    #[test]
    fn a_sweep_removes_abandoned_files_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let ours = |random: &str| at(&format!("{OURS}{random}"));
        let [left, held_file] = [ours("leftleftleft"), ours("heldheldheld")];
        let [left_folder, held_folder] = [ours("left00000000"), ours("held00000000")];
        fs::create_dir_all(left_folder.join("inside")).unwrap();
        fs::write(left_folder.join("inside/file"), "").unwrap();
        fs::create_dir(&held_folder).unwrap();
        for file in [&left, &held_file, &at(".partial-mine"), &at("mine")] {
            fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink(at("mine"), ours("linklinklink")).unwrap();
        let locks = [&held_file, &held_folder].map(|path| File::open(path).unwrap());
        locks.iter().for_each(|lock| lock.lock().unwrap());

        sweep(folder.path());
        assert!(!left.exists() && !left_folder.exists());
        assert!(held_file.exists() && held_folder.exists() && at(".partial-mine").exists());
        assert!(fs::symlink_metadata(ours("linklinklink")).unwrap().is_symlink() && at("mine").exists());
        drop(locks);
        sweep(folder.path());
        assert!(!held_file.exists() && !held_folder.exists());
    }
}
