//! Folders called `10_dog`, as kohya's scripts have them: a number of repeats, and what the photos show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::Names;

/// A folder with such a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repeats {
    pub(crate) folder: PathBuf,
    /// What follows the number.
    pub(crate) shows: String,
}

impl Repeats {
    /// If the folder has such a name.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_string_lossy();
        let (number, shows) = name.split_once('_')?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        (is_number && !shows.is_empty()).then(|| Self { folder: folder.to_owned(), shows: shows.to_owned() })
    }

    /// Those among the paths.
    pub(crate) fn among(paths: &[PathBuf]) -> Vec<Self> {
        paths.iter().filter(|path| path.is_dir()).filter_map(|path| Self::of(path)).collect()
    }

    /// Whether all show the same.
    pub(crate) fn agree(folders: &[Self]) -> bool {
        folders.iter().map(|folder| folder.shows.as_str()).collect::<BTreeSet<_>>().len() <= 1
    }

    /// What the user should know of them.
    pub(crate) fn note(folders: &[Self]) -> String {
        let paths: Vec<PathBuf> = folders.iter().map(|folder| folder.folder.clone()).collect();
        format!(
            "of the name {}, as kohya's scripts have them, neither the repeats nor the words are used: all photos come equally often",
            Names(&paths)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repeats_have_a_number_and_words() {
        let shows = |name: &str| Repeats::of(&Path::new("photos").join(name)).map(|repeats| repeats.shows);
        assert_eq!(shows("10_sks dog"), Some("sks dog".to_owned()));
        assert_eq!(shows("1_a_b"), Some("a_b".to_owned()));
        for other in ["dog", "10_", "_dog", "10dog", "x10_dog", "-1_dog", "10 dog"] {
            assert_eq!(shows(other), None, "{other}");
        }
    }
}
