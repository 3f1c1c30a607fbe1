//! What is read from a URL, downloaded once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::store::{Object, Store};

/// What of a URL is downloaded, and how much at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Files.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Endings of names, without the dot; none are all.
    pub endings: &'static [&'static str],
}

/// What has been downloaded.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    files: BTreeMap<String, Version>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    size: u64,
    /// Nanoseconds since 1970.
    written: u64,
    etag: Option<String>,
}

impl Version {
    fn of(object: &Object) -> Self {
        let written = object.written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self { size: object.size, written: u64::try_from(written).unwrap_or(u64::MAX), etag: object.etag.clone() }
    }
}

/// The file or folder at a URL on this machine: downloaded below `cache`, as far as it is not there or has changed. One in a `file:` URL
/// is where it is. `told` is called with the number and the bytes of files before any is downloaded.
///
/// # Errors
/// When there is nothing, or more than the bounds allow, or it cannot be downloaded or written.
pub fn fetch(url: &str, cache: &Path, bounds: &Bounds, told: &mut dyn FnMut(usize, u64)) -> Result<PathBuf> {
    let store = Store::open(url)?;
    if let Some(folder) = store.folder() {
        return Ok(folder);
    }
    let url = store.url();
    let own = cache.join(file_name(url));
    let last = last(url);
    let target = own.join(last);
    fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    let lock = File::create(own.join(".lock")).with_context(|| format!("cannot write into {}", own.display()))?;
    // Where the file system has no locks, two may download the same.
    let _ = lock.lock();
    let single = store.look("")?.filter(|object| object.size > 0);
    let is_single = single.is_some();
    let wanted = |object: &Object| {
        let ending = object.name.rsplit_once('.').map_or("", |(_, ending)| ending);
        bounds.endings.is_empty() || bounds.endings.iter().any(|known| ending.eq_ignore_ascii_case(known))
    };
    let objects: Vec<Object> = match single {
        Some(object) => vec![object],
        None => store.list()?.into_iter().filter(wanted).collect(),
    };
    ensure!(!objects.is_empty(), "there is nothing at {url}");
    let bytes = objects.iter().fold(0_u64, |bytes, object| bytes.saturating_add(object.size));
    ensure!(
        objects.len() <= bounds.files && bytes <= bounds.bytes,
        "{url} has {} files of {} MiB, more than the {} of {} MiB that are downloaded",
        objects.len(),
        bytes >> 20,
        bounds.files,
        bounds.bytes >> 20
    );
    let record_file = own.join("record.json");
    let mut record: Record = match record_file.exists() {
        true => json::read(&record_file, "a record of downloads").unwrap_or_default(),
        false => Record::default(),
    };
    let path = |name: &str| if is_single { target.clone() } else { target.join(name) };
    let mut missing = Vec::new();
    for object in &objects {
        ensure!(
            is_single || is_inside(&object.name),
            "{url} has a file called {:?}, which is no name here",
            object.name
        );
        let here = fs::metadata(path(&object.name)).is_ok_and(|here| here.is_file() && here.len() == object.size);
        if !here || record.files.get(&object.name) != Some(&Version::of(object)) {
            missing.push(object);
        }
    }
    let gone: Vec<String> =
        record.files.keys().filter(|name| objects.iter().all(|object| object.name != **name)).cloned().collect();
    for name in gone {
        if is_inside(&name) {
            let _ = fs::remove_file(path(&name));
        }
        record.files.remove(&name);
    }
    if !missing.is_empty() {
        told(missing.len(), missing.iter().map(|object| object.size).sum());
    }
    for object in missing {
        store.download(&object.name, &path(&object.name), object.size)?;
        record.files.insert(object.name.clone(), Version::of(object));
        atomic::write(&record_file, serde_json::to_vec(&record)?)?;
    }
    Ok(target)
}

/// A name for a folder here of what is at a URL, as `rex-90abcdef12345678`.
pub fn file_name(url: &str) -> String {
    format!("{}-{}", last(url), hex::encode(&Sha256::digest(url)[..8]))
}

fn last(url: &str) -> &str {
    url.rsplit('/').next().filter(|last| is_inside(last)).unwrap_or("files")
}

/// Whether the name of a file stays in the folder that it is joined to.
pub fn is_inside(name: &str) -> bool {
    let is_normal = |part: Component<'_>| matches!(part, Component::Normal(part) if part.len() < 250);
    !name.is_empty()
        && !name.contains(['\\', '\0'])
        && Path::new(name).components().all(is_normal)
        && !name.starts_with('/')
}
