//! Files beside photos that other trainers read: captions, masks, and what is for neither.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::contents::is_called_photo;

/// Files that are beside photos and for them.
#[derive(Debug, Default)]
pub(crate) struct Companions {
    /// `01.txt` and `01.caption` beside `01.jpg`; `01.tags`, `01.json` and lists such as `metadata.jsonl`, which nobody reads here.
    pub(crate) captions: Vec<PathBuf>,
    /// `01-masklabel.png` (OneTrainer), `01-mask.png`, `01_mask.png`, `01.mask.png` and `01.mask` beside `01.jpg`.
    pub(crate) masks: Vec<PathBuf>,
    /// `01-masklabel.png` without `01.jpg`.
    pub(crate) orphans: Vec<PathBuf>,
    /// `01-condlabel.png`, OneTrainer's images to condition on.
    pub(crate) conditions: Vec<PathBuf>,
}

/// Captions that can be used, by their extension; of two of one photo the first counts.
const CAPTIONS: [&str; 2] = ["txt", "caption"];
const OTHER_CAPTIONS: [&str; 2] = ["tags", "json"];
const LISTS: [&str; 5] = ["metadata.jsonl", "metadata.csv", "metadata.parquet", "meta_cap.json", "meta_lat.json"];
/// The end of OneTrainer's names of masks, which no photo has by chance.
const LABEL: &str = "-masklabel";
/// Ends of masks' names; of two of one photo the first counts.
const MASKS: [&str; 5] = [LABEL, "-mask", "_mask", ".mask", "-masks"];
const CONDITION: &str = "-condlabel";

impl Companions {
    /// Takes them out of `paths`, which may be of several folders.
    pub(crate) fn take(paths: &mut Vec<PathBuf>) -> Self {
        let photos: BTreeSet<PathBuf> =
            paths.iter().filter(|path| is_called_photo(path)).map(|path| path.with_extension("")).collect();
        let mut found = Self::default();
        paths.retain(|path| {
            let of_photo = |photo: Option<PathBuf>| photo.is_some_and(|photo| photos.contains(&photo));
            let list = path.file_name().is_some_and(|name| LISTS.iter().any(|list| name.eq_ignore_ascii_case(list)));
            let caption = CAPTIONS.iter().chain(&OTHER_CAPTIONS).any(|extension| has_extension(path, extension));
            let kind = if !path.is_file() {
                return true;
            } else if of_photo(mask_of(path)) {
                &mut found.masks
            } else if is_called_photo(path) && without_end(path, LABEL).is_some() {
                &mut found.orphans
            } else if is_called_photo(path) && without_end(path, CONDITION).is_some() {
                &mut found.conditions
            } else if (list && !photos.is_empty()) || (caption && photos.contains(&path.with_extension(""))) {
                &mut found.captions
            } else {
                return true;
            };
            kind.push(path.clone());
            false
        });
        found
    }

    /// Of these, those of one photo.
    pub(crate) fn of(self, photo: &Path) -> Self {
        let photo = photo.with_extension("");
        let captions = self.captions.into_iter().filter(|path| path.with_extension("") == photo).collect();
        let masks = self.masks.into_iter().filter(|path| mask_of(path).as_ref() == Some(&photo)).collect();
        Self { captions, masks, ..Self::default() }
    }

    /// The caption of a photo.
    pub(crate) fn caption(&self, photo: &Path) -> Option<&Path> {
        let of_photo = |extension: &str| {
            let is_its =
                |path: &&PathBuf| has_extension(path, extension) && path.with_extension("") == photo.with_extension("");
            self.captions.iter().find(is_its)
        };
        CAPTIONS.iter().find_map(|extension| of_photo(extension)).map(PathBuf::as_path)
    }

    /// The mask of a photo.
    pub(crate) fn mask(&self, photo: &Path) -> Option<&Path> {
        let photo = photo.with_extension("");
        let its = || self.masks.iter().filter(|path| mask_of(path).as_ref() == Some(&photo));
        let by_end = |end: &&str| its().find(|path| without_end(path, end).as_ref() == Some(&photo));
        MASKS.iter().find_map(by_end).or_else(|| its().next()).map(PathBuf::as_path)
    }
}

/// The photo that a file is a mask of, if its name is that of a mask: without extension.
fn mask_of(path: &Path) -> Option<PathBuf> {
    if has_extension(path, "mask") {
        return Some(path.with_extension(""));
    }
    MASKS.iter().filter(|_| is_called_photo(path)).find_map(|end| without_end(path, end))
}

/// A path without its extension and without the `end` of its name, if that is its end.
fn without_end(path: &Path, end: &str) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_string_lossy().strip_suffix(end)?.to_owned();
    Some(path.with_file_name(stem))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|given| given.eq_ignore_ascii_case(extension))
}
