//! Errors, in sentences.

use std::fmt::{self, Display};
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// A file that is not among the photos, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The file.
    pub path: PathBuf,
    /// What follows its name in a sentence: "is empty".
    pub reason: String,
}

impl Rejected {
    /// The note to a user whose other files are used.
    pub fn note(&self) -> String {
        format!("{self}; it is ignored")
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.file_name().unwrap_or_default().display(), self.reason)
    }
}

impl std::error::Error for Rejected {}

/// A decoder's error, on one line.
pub(crate) fn damaged(error: &dyn Display) -> String {
    format!("is damaged: {}", error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Why there are no photos to train on; each message is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A single photo that cannot be used.
    #[error("the photo {} {}", .0.path.display(), .0.reason)]
    Photo(Rejected),
    /// The folder itself cannot be read.
    #[error("cannot read photos from {}", folder.display())]
    Folder {
        /// As given.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Nothing in it is a photo.
    #[error("the folder {} holds no photos{}: put at least one into it", folder.display(), Instead(skipped))]
    NoPhotos {
        /// As given.
        folder: PathBuf,
        /// The files in it.
        skipped: Vec<Rejected>,
    },
    /// Photos that cannot be used, all of them, so that they can be repaired at once.
    #[error(
        "{} of the {total} photos in {} cannot be used, so repair or remove: {}",
        photos.len(), folder.display(), List(photos, 20)
    )]
    Unusable {
        /// As given.
        folder: PathBuf,
        /// Those that cannot be used.
        photos: Vec<Rejected>,
        /// How many photos there are, good ones included.
        total: usize,
    },
    /// Folders as kohya's scripts have them, of more than one subject.
    #[error(
        "the folder {} holds no photos, but folders of repeats that show different things ({}): name one of them, and further \
         subjects as such", folder.display(), Names(folders)
    )]
    Subjects {
        /// As given.
        folder: PathBuf,
        /// Those in it.
        folders: Vec<PathBuf>,
    },
    /// Masks are asked for, and there is none.
    #[error(
        "masks are asked for, but no photo in {} has one: save NAME-masklabel.png (white is subject) beside NAME.jpg, or the photo \
         with an alpha channel", folder.display()
    )]
    NoMasks {
        /// As given.
        folder: PathBuf,
    },
    /// More than fits in memory; probably an album.
    #[error(
        "the {photos} photos in {} have {megapixels} megapixels together, more than the {limit} that are read: \
         choose fewer (three to ten photos of one subject are enough)",
        folder.display()
    )]
    TooMany {
        /// As given.
        folder: PathBuf,
        /// How many photos there are.
        photos: usize,
        /// Their size together, in millions of pixels.
        megapixels: u64,
        /// The most that is read, in millions of pixels.
        limit: u64,
    },
}

/// A value of [`Augmentation`](crate::Augmentation) or [`SizeAugmentation`](crate::SizeAugmentation) that is out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{key} is {value}, but it must be from {} to {}", allowed.start(), allowed.end())]
pub struct InvalidAugmentation {
    /// The name of the field.
    pub key: &'static str,
    /// What it holds.
    pub value: f64,
    /// What it may hold.
    pub allowed: RangeInclusive<f64>,
}

impl InvalidAugmentation {
    pub(crate) fn check(key: &'static str, value: f64, allowed: RangeInclusive<f64>) -> Result<(), Self> {
        if allowed.contains(&value) { Ok(()) } else { Err(Self { key, value, allowed }) }
    }
}

/// Files in a sentence: at most so many, and the number of the others.
struct List<'a>(&'a [Rejected], usize);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(files, most) = *self;
        for (i, file) in files.iter().take(most).enumerate() {
            write!(f, "{}{file}", if i == 0 { "" } else { "; " })?;
        }
        if files.len() > most { write!(f, "; and {} more", files.len() - most) } else { Ok(()) }
    }
}

/// Files by their names: at most so many, and the number of the others.
pub(crate) struct Names<'a>(pub(crate) &'a [PathBuf]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 5;
        let names = self.0.iter().take(MOST).map(|path| path.file_name().unwrap_or_default().display().to_string());
        f.write_str(&names.collect::<Vec<_>>().join(", "))?;
        if self.0.len() > MOST { write!(f, " and {} more", self.0.len() - MOST) } else { Ok(()) }
    }
}

struct Instead<'a>(&'a [Rejected]);

impl fmt::Display for Instead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", List(self.0, 5)) }
    }
}
