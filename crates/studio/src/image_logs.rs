//! The generated images of folders, as their logs tell.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Result;
use runs::{ImageEntry, layout, read_images};

use crate::folder::names;

/// The images of a folder, as its log and the folder were when they were read.
#[derive(Debug)]
struct Images {
    length: u64,
    changed: Option<SystemTime>,
    entries: Arc<Vec<ImageEntry>>,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct ImageLogs(Mutex<HashMap<PathBuf, Images>>);

impl ImageLogs {
    /// The images in a folder by its log, without those whose files were deleted; both are read again when they have changed.
    pub(crate) fn of(&self, folder: &Path) -> Result<Arc<Vec<ImageEntry>>> {
        let length = fs::metadata(folder.join(layout::IMAGE_LOG)).map_or(0, |metadata| metadata.len());
        let changed = fs::metadata(folder).and_then(|metadata| metadata.modified()).ok();
        let mut images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = images.get(folder).filter(|images| images.length == length && images.changed == changed) {
            return Ok(images.entries.clone());
        }
        let mut entries = read_images(folder)?;
        let files: HashSet<String> = names(folder).into_iter().map(String::from).collect();
        // No record leads out of its folder.
        entries.retain(|entry| files.contains(&entry.file));
        let entries = Arc::new(entries);
        images.insert(folder.to_owned(), Images { length, changed, entries: entries.clone() });
        Ok(entries)
    }
}
