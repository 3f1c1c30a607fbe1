//! The SHA-256 of files' contents, computed once for each file and cached.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("weights");
//! std::fs::write(&path, "abc")?;
//! let fingerprints = fingerprint::Fingerprints::in_folder(folder.path().join("cache"));
//! let sha256 = fingerprints.of(&path)?;
//! assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
//! # anyhow::Ok(())
//! ```
//!
//! A fingerprint is cached in the user's cache folder under the file's device, inode, size and times of change
//! (mtime and ctime): whatever changes the file changes its ctime, which no program can set. A file that changed within
//! the last two seconds may change again without another time, and is read again.
//!
//! Invariants: the cache is never wrong, only incomplete: an entry is written as a whole, has a checksum, and is read only
//! under exactly these numbers. A cache that cannot be read or written is no error. There are at most
//! [`MOST_ENTRIES`] entries. Knows nothing of what is in a file.

mod cache;

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};

pub use cache::MOST_ENTRIES;

/// Seconds: file systems keep times as coarsely as this.
const COARSEST_TIME: i64 = 2;

/// Fingerprints of files, with their cache.
#[derive(Debug)]
pub struct Fingerprints {
    /// `None` where the user has no cache folder.
    folder: Option<PathBuf>,
    /// Those of this process by the same keys, also where the folder is not writable.
    known: Mutex<HashMap<String, String>>,
}

impl Fingerprints {
    /// The user's: in `attndreambooth/fingerprints` in `$XDG_CACHE_HOME` or `~/.cache`.
    pub fn of_user() -> &'static Self {
        static OF_USER: LazyLock<Fingerprints> = LazyLock::new(|| {
            let cache = etcetera::base_strategy::Xdg::new().ok().map(|user| user.cache_dir());
            let folder = cache.map(|cache| cache.join("attndreambooth/fingerprints"));
            Fingerprints { folder, known: Mutex::default() }
        });
        &OF_USER
    }

    /// A cache in a folder of its own, created when there is something to write.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), known: Mutex::default() }
    }

    /// The SHA-256 of a file's contents, in hexadecimal.
    ///
    /// # Errors
    /// When the file cannot be read, or changes meanwhile.
    pub fn of(&self, path: &Path) -> Result<String> {
        let failed = || format!("cannot read {}", path.display());
        let mut file = File::open(path).with_context(failed)?;
        let before = file.metadata().with_context(failed)?;
        ensure!(before.is_file(), "{} is not a file", path.display());
        let key = key(&before);
        if let Some(known) = self.cached(&key) {
            return Ok(known);
        }
        let start = SystemTime::now();
        let sha256 = hash(&mut file).with_context(failed)?;
        tracing::debug!(file = %path.display(), sha256, "computed a fingerprint");
        let after = file.metadata().with_context(failed)?;
        ensure!(self::key(&after) == key, "{} was changed while it was read; try again", path.display());
        if settled(&before, start) {
            self.store(key, &sha256);
        }
        Ok(sha256)
    }

    fn cached(&self, key: &str) -> Option<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sha256) = known.get(key) {
            return Some(sha256.clone());
        }
        let sha256 = cache::read(self.folder.as_deref()?, key)?;
        known.insert(key.to_owned(), sha256.clone());
        Some(sha256)
    }

    fn store(&self, key: String, sha256: &str) {
        if let Some(folder) = &self.folder {
            // The file is read again next time.
            let _ = cache::write(folder, &key, sha256);
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, sha256.to_owned());
    }
}

/// The numbers that the system changes whenever the file is another one or has other contents, as a file's name.
fn key(metadata: &Metadata) -> String {
    let numbers = [
        i128::from(metadata.dev()),
        i128::from(metadata.ino()),
        i128::from(metadata.size()),
        i128::from(metadata.mtime()),
        i128::from(metadata.mtime_nsec()),
        i128::from(metadata.ctime()),
        i128::from(metadata.ctime_nsec()),
    ];
    hex::encode(Sha256::digest(format!("{numbers:?}")))
}

/// Whether a change from now on would have another time.
fn settled(metadata: &Metadata, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    metadata.ctime().max(metadata.mtime()).saturating_add(COARSEST_TIME) < now
}

fn hash(file: &mut File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// The SHA-256 of bytes in memory, in hexadecimal.
pub fn of_bytes(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    /// SHA-256 of "abc", FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    /// Of the empty message.
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// A file that has not been changed for long; its ctime cannot be set, so a file of the repository stands for it.
    fn old() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn only_contents_count() {
        let folder = tempfile::tempdir().unwrap();
        let fingerprints = Fingerprints::in_folder(folder.path().join("cache"));
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        fs::write(&a, "abc").unwrap();
        fs::write(&b, "").unwrap();
        assert_eq!((fingerprints.of(&a).unwrap(), fingerprints.of(&b).unwrap()), (ABC.to_owned(), EMPTY.to_owned()));
        // At once, of the same size and with the old time: neither is cached.
        let time = fs::metadata(&a).unwrap().modified().unwrap();
        fs::write(&a, "xyz").unwrap();
        File::options().write(true).open(&a).unwrap().set_modified(time).unwrap();
        assert_ne!(fingerprints.of(&a).unwrap(), ABC);
        fs::rename(&b, &a).unwrap();
        assert_eq!(fingerprints.of(&a).unwrap(), EMPTY);
        assert_eq!(of_bytes("abc"), ABC);
    }

    #[test]
    fn a_file_that_is_not_new_is_cached_beyond_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let sha256 = Fingerprints::in_folder(&cache).of(&old()).unwrap();
        assert_eq!(sha256, of_bytes(fs::read(old()).unwrap()));
        let [entry] = &entries(&cache)[..] else { panic!("one entry") };
        // The entry is what is returned ...
        fs::write(entry, cache::text(&entry.file_name().unwrap().to_string_lossy(), ABC)).unwrap();
        assert_eq!(Fingerprints::in_folder(&cache).of(&old()).unwrap(), ABC);
        // ... unless it is damaged in any place; then the file is read, and the entry is written again.
        let whole = fs::read(entry).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            for damaged in [&damaged[..], &whole[..at]] {
                fs::write(entry, damaged).unwrap();
                assert_eq!(Fingerprints::in_folder(&cache).of(&old()).unwrap(), sha256, "{at}");
            }
        }
        fs::rename(entry, cache.join("0".repeat(64))).unwrap();
        fs::copy(cache.join("0".repeat(64)), entry).unwrap();
        assert_eq!(Fingerprints::in_folder(&cache).of(&old()).unwrap(), sha256);
    }

    #[test]
    fn a_recent_file_is_not_cached() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "abc").unwrap();
        Fingerprints::in_folder(folder.path().join("cache")).of(&folder.path().join("a")).unwrap();
        assert!(!folder.path().join("cache").exists());
        let metadata = fs::metadata(folder.path().join("a")).unwrap();
        let after = |seconds| UNIX_EPOCH + Duration::from_secs(metadata.ctime() as u64 + seconds);
        assert!(!settled(&metadata, after(0)) && !settled(&metadata, after(2)) && settled(&metadata, after(3)));
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        fs::write(&cache, "a file").unwrap();
        let sha256 = of_bytes(fs::read(old()).unwrap());
        assert_eq!(Fingerprints::in_folder(&cache).of(&old()).unwrap(), sha256);
        assert_eq!(fs::read(&cache).unwrap(), b"a file");
        fs::remove_file(&cache).unwrap();
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, Permissions::from_mode(0o555)).unwrap();
        assert_eq!(Fingerprints::in_folder(&cache).of(&old()).unwrap(), sha256);
        assert_eq!(Fingerprints { folder: None, known: Mutex::default() }.of(&old()).unwrap(), sha256);
    }

    #[test]
    fn many_writers_leave_complete_entries_and_not_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path();
        std::thread::scope(|scope| {
            for writer in 0..4u64 {
                scope.spawn(move || {
                    for i in 0..MOST_ENTRIES as u64 / 2 {
                        // Half of them are another writer's too.
                        let key = of_bytes(format!("{}", i * 2 + writer % 2 + writer / 2 * 10_000));
                        cache::write(cache, &key, ABC).unwrap();
                    }
                });
            }
        });
        let left = entries(cache);
        assert!(left.len() <= MOST_ENTRIES && left.len() > MOST_ENTRIES / 2, "{}", left.len());
        for entry in left {
            let key = entry.file_name().unwrap().to_string_lossy().into_owned();
            assert_eq!(cache::read(cache, &key).as_deref(), Some(ABC));
        }
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let fingerprints = Fingerprints::in_folder(folder.path().join("cache"));
        let says = |path: &Path| format!("{:#}", fingerprints.of(path).unwrap_err());
        assert!(says(&folder.path().join("none")).contains("/none: "));
        assert!(says(folder.path()).ends_with("is not a file"));
    }
}
