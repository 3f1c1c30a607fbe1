//! Files beside photos that other trainers read: captions and masks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::contents::is_called_photo;

/// Files that are beside photos and for them.
#[derive(Debug, Default)]
pub(crate) struct Companions {
    /// `01.txt` and `01.caption` beside `01.jpg`, and lists such as `metadata.jsonl`.
    pub(crate) captions: Vec<PathBuf>,
    /// `01-mask.png`, `01_mask.png`, `01.mask.png` and `01-masklabel.png` beside `01.jpg`.
    pub(crate) masks: Vec<PathBuf>,
}

const CAPTIONS: [&str; 4] = ["txt", "caption", "tags", "json"];
const LISTS: [&str; 5] = ["metadata.jsonl", "metadata.csv", "metadata.parquet", "meta_cap.json", "meta_lat.json"];
const MASKS: [&str; 5] = ["-mask", "_mask", ".mask", "-masklabel", "-masks"];

impl Companions {
    /// Takes them out of a folder's `paths`.
    pub(crate) fn take(paths: &mut Vec<PathBuf>) -> Self {
        let photos: BTreeSet<String> =
            paths.iter().filter(|path| is_called_photo(path)).map(|path| stem(path)).collect();
        let mut found = Self::default();
        paths.retain(|path| {
            let stem = stem(path);
            let mask_of = MASKS.iter().find_map(|suffix| stem.strip_suffix(suffix));
            let list = path.file_name().is_some_and(|name| LISTS.iter().any(|list| name.eq_ignore_ascii_case(list)));
            let caption =
                path.extension().is_some_and(|given| CAPTIONS.iter().any(|own| given.eq_ignore_ascii_case(own)));
            if !path.is_file() {
                return true;
            }
            if is_called_photo(path) && mask_of.is_some_and(|photo| photos.contains(photo)) {
                found.masks.push(path.clone());
            } else if (list && !photos.is_empty()) || (caption && photos.contains(&stem)) {
                found.captions.push(path.clone());
            } else {
                return true;
            }
            false
        });
        found
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
