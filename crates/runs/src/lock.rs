//! A folder in which one process at a time works.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;
use rustix::io::Errno;

pub(crate) const FILE: &str = ".lock";
/// Longer than a process's number: then the file is not a lock.
const LONGEST: u64 = 20;

/// A folder that is this process's until this is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct Lock {
    /// The operating system's lock goes with the open file; that the file remains means nothing.
    file: File,
    note: Option<String>,
}

impl Lock {
    /// Takes a folder, which must exist.
    ///
    /// # Errors
    /// When another process has it, it cannot be written to, or its `.lock` is something else than a lock, such as a link.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let failed = || format!("cannot lock {}", path.display());
        let foreign = || format!("{} is not a lock of this program; move it away", path.display());
        // Not through a link, not waiting for a pipe's other end, and not emptied before it is ours: until then another
        // process's number stands in it.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).custom_flags(flags as i32);
        let mut file = match options.open(&path) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => bail!(foreign()),
            opened => opened.with_context(failed)?,
        };
        ensure!(file.metadata().with_context(failed)?.is_file(), foreign());
        let mut text = String::new();
        let read = (&mut file).take(LONGEST).read_to_string(&mut text);
        ensure!(read.is_ok() && (text.trim().is_empty() || text.trim().parse::<u32>().is_ok()), foreign());
        let note = match file.try_lock() {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => {
                let process =
                    text.trim().parse::<u32>().map_or("another process".to_owned(), |id| format!("process {id}"));
                bail!("folder {} is in use by {process}; wait for it, or choose another --out", folder.display());
            }
            Err(TryLockError::Error(error)) if unsupported(&error) => Some(format!(
                "the file system of {} has no locks ({error}): nothing keeps a second process out of this folder",
                folder.display()
            )),
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        };
        let mut number = || {
            file.set_len(0)?;
            // It may have been read before.
            io::Seek::rewind(&mut file)?;
            writeln!(file, "{}", std::process::id())
        };
        number().with_context(failed)?;
        Ok(Self { file, note })
    }

    /// The process that works in a folder, by the number in its lock, without touching the lock: for showing it.
    pub fn holder(folder: &Path) -> Option<u32> {
        let file = limits::open(&folder.join(FILE)).ok()?;
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).ok()?;
        let process = text.trim().parse().ok()?;
        // A killed process has left its number there.
        Path::new("/proc").join(text.trim()).exists().then_some(process)
    }

    /// What the user should know: that the file system has no locks, where it has none.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

/// Whether a file system refuses every lock, as some NFS, Lustre and FUSE mounts do.
fn unsupported(error: &io::Error) -> bool {
    let never = [Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS, Errno::NOLCK];
    Errno::from_io_error(error).is_some_and(|errno| never.contains(&errno))
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Only a courtesy to readers: the lock itself ends when the file is closed.
        let _ = self.file.set_len(0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_not_a_lock_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join(FILE), folder.path().join("victim"));
        let refused = || {
            let error = Lock::take(folder.path()).unwrap_err().to_string();
            assert!(error.contains(".lock is not a lock of this program"), "{error}");
            assert_eq!(fs::read(&victim).unwrap(), b"precious");
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        };
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        refused();
        symlink(folder.path().join("nowhere"), &path).unwrap();
        refused();
        assert!(!folder.path().join("nowhere").exists());
        fs::hard_link(&victim, &path).unwrap();
        refused();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        refused();
        fs::create_dir(&path).unwrap();
        assert!(Lock::take(folder.path()).unwrap_err().to_string().contains("cannot lock"));
    }

    #[test]
    fn a_lock_is_held_once_and_names_its_process() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let lock = Lock::take(folder.path()).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), format!("{}\n", std::process::id()));
            let error = Lock::take(folder.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
            assert_eq!((lock.note(), Lock::holder(folder.path())), (None, Some(std::process::id())));
            drop(lock);
            assert_eq!(Lock::holder(folder.path()), None);
        }
        // As a killed process leaves it.
        fs::write(folder.path().join(FILE), "4194304\n").unwrap();
        assert_eq!(Lock::holder(folder.path()), None);
        Lock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_file_system_without_locks_is_not_a_failure() {
        for errno in [Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS, Errno::NOLCK] {
            assert!(unsupported(&errno.into()), "{errno}");
        }
        for errno in [Errno::ACCESS, Errno::IO, Errno::NOSPC, Errno::ROFS, Errno::INTR] {
            assert!(!unsupported(&errno.into()), "{errno}");
        }
    }
}
