//! Reading and validating a folder of photos.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};
use images::{Filter, resize, with_short_side};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::companions::Companions;
use crate::contents::{Contents, HEAD};
use crate::decode;
use crate::error::{Error, Names, Rejected};
use crate::icc::Profile;

/// The photos of a folder are held in memory; so many pixels are 6 GB.
const MAX_FOLDER_PIXELS: u64 = 2_000_000_000;
/// More pixels than a camera's usual photo has.
const LARGE_PIXELS: u64 = 1 << 25;
/// No photo's file is larger, and larger ones are not read to find out.
const MAX_FILE_BYTES: u64 = 1 << 31;

/// How photos are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What shows through where a photo is transparent: white, as on a page. `None` drops the transparency instead and
    /// shows the colours hidden under it, as the authors' `convert("RGB")` does.
    pub background: Option<[u8; 3]>,
    /// Photos whose shorter side is longer than this are shrunk to it once, when they are read. Off by default, because
    /// it changes the pixels of crops (they are resized twice). Twice the resolution of training or more keeps the
    /// detail; large photos then take less memory and render several times faster.
    pub max_short_side: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { background: Some([255; 3]), max_short_side: None }
    }
}

/// A decoded photo.
#[derive(Clone)]
pub struct Photo {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
    /// Upright, 8 bits a channel, sRGB: converted from an embedded colour profile, which the authors' code ignores.
    pub pixels: RgbImage,
}

impl Photo {
    /// Reads a single file as those of a folder are read.
    ///
    /// # Errors
    /// When the file cannot be read or is not a usable image.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, Rejected> {
        Self::open_alone(path.as_ref(), options).map(|(photo, _)| photo)
    }

    fn open_alone(path: &Path, options: &Options) -> Result<(Self, Profile), Rejected> {
        match inspect(path.to_owned(), options) {
            Entry::Photo { path, format, .. } => read(path, format, options),
            Entry::Unusable(rejected) | Entry::Skipped(rejected) => Err(rejected),
        }
    }

    /// The file's name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().display().to_string()
    }
}

/// Without the pixels.
impl fmt::Debug for Photo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.pixels.dimensions();
        f.debug_struct("Photo").field("path", &self.path).field("size", &size).finish_non_exhaustive()
    }
}

/// All photos of a folder, at least one, or a single photo that was named instead.
#[derive(Debug, Clone)]
pub struct PhotoFolder {
    /// Sorted by name.
    pub photos: Vec<Photo>,
    /// What else is in the folder (nothing for a single photo), sorted by name: hidden files, sub-folders, files that are
    /// not images.
    pub skipped: Vec<Rejected>,
    /// What the user should know, in sentences: files that are skipped, captions and masks, which are not used, and colours
    /// that were converted or could not be.
    pub notes: Vec<String>,
}

/// An entry of the folder, before anything is decoded.
enum Entry {
    Photo { path: PathBuf, format: ImageFormat, pixels: u64 },
    Unusable(Rejected),
    Skipped(Rejected),
}

impl PhotoFolder {
    /// Reads all photos of a folder, in parallel; or the photo alone, where `folder` is a file.
    ///
    /// # Errors
    /// When the file is not a usable photo; when the folder cannot be read, holds no photos or far too many, or when any photo
    /// in it is damaged, larger than [`MAX_PIXELS`](crate::MAX_PIXELS) or of a format that is not read; all of these are named.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(folder, &Options::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`PhotoFolder::open`].
    pub fn open_with(folder: impl AsRef<Path>, options: &Options) -> Result<Self, Error> {
        let folder = folder.as_ref();
        if folder.is_file() {
            let (photo, profile) = Photo::open_alone(folder, options).map_err(Error::Photo)?;
            let notes = notes(&Companions::default(), &[(photo.path.clone(), profile)]);
            return Ok(Self { photos: vec![photo], skipped: Vec::new(), notes });
        }
        let mut paths = paths(folder).map_err(|source| Error::Folder { folder: folder.to_owned(), source })?;
        let companions = Companions::take(&mut paths);
        // Headers first: nothing is decoded that would not fit.
        let entries: Vec<Entry> = paths.into_par_iter().map(|path| inspect(path, options)).collect();

        let (mut found, mut unusable, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Photo { path, format, pixels } => found.push((path, format, pixels)),
                Entry::Unusable(rejected) => unusable.push(rejected),
                Entry::Skipped(rejected) => skipped.push(rejected),
            }
        }
        let total = found.len() + unusable.len();
        if total == 0 {
            return Err(Error::NoPhotos { folder: folder.to_owned(), skipped });
        }
        let pixels: u64 = found.iter().map(|(_, _, pixels)| pixels).sum();
        if pixels > MAX_FOLDER_PIXELS {
            let [megapixels, limit] = [pixels, MAX_FOLDER_PIXELS].map(|pixels| pixels / 1_000_000);
            return Err(Error::TooMany { folder: folder.to_owned(), photos: total, megapixels, limit });
        }
        // Decoding takes several times the memory of the pixels, so the largest are decoded one by one.
        let (large, small): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, _, pixels)| *pixels > LARGE_PIXELS);
        let read = |(path, format, _)| read(path, format, options);
        let mut decoded: Vec<_> = small.into_par_iter().map(read).collect();
        decoded.extend(large.into_iter().map(read));
        let mut photos = Vec::new();
        for photo in decoded {
            match photo {
                Ok(photo) => photos.push(photo),
                Err(rejected) => unusable.push(rejected),
            }
        }
        if unusable.is_empty() {
            photos.sort_by(|(a, _): &(Photo, Profile), (b, _)| a.path.cmp(&b.path));
            let profiles: Vec<_> =
                photos.iter().map(|(photo, profile)| (photo.path.clone(), profile.clone())).collect();
            let photos: Vec<_> = photos.into_iter().map(|(photo, _)| photo).collect();
            tracing::info!(folder = %folder.display(), photos = photos.len(), skipped = skipped.len(), "opened photos");
            let notes = skipped.iter().map(Rejected::note).chain(notes(&companions, &profiles)).collect();
            return Ok(Self { photos, skipped, notes });
        }
        unusable.sort_by(|a, b| a.path.cmp(&b.path));
        Err(Error::Unusable { folder: folder.to_owned(), photos: unusable, total })
    }
}

/// Notes on files beside photos and on photos' colours: one for each reason, however many files.
fn notes(companions: &Companions, profiles: &[(PathBuf, Profile)]) -> Vec<String> {
    let Companions { captions, masks } = companions;
    let mut notes = Vec::new();
    let unused = [("captions", captions), ("masks", masks)].into_iter().filter(|(_, files)| !files.is_empty());
    let unused: Vec<String> = unused.map(|(what, files)| format!("{what} ({})", Names(files))).collect();
    if !unused.is_empty() {
        notes.push(format!(
            "{} are not used: training uses every photo as a whole, with the configured prompt",
            unused.join(" and ")
        ));
    }
    let with = |matches: &dyn Fn(&Profile) -> bool| -> Vec<PathBuf> {
        profiles.iter().filter(|(_, profile)| matches(profile)).map(|(path, _)| path.clone()).collect()
    };
    let converted = with(&|profile| *profile == Profile::Converted);
    if !converted.is_empty() {
        notes.push(format!("colours are converted from embedded colour profiles to sRGB: {}", Names(&converted)));
    }
    let mut reasons: Vec<&String> = Vec::new();
    for (_, profile) in profiles {
        if let Profile::Ignored(reason) = profile
            && !reasons.contains(&reason)
        {
            reasons.push(reason);
            let files = with(&|profile| matches!(profile, Profile::Ignored(other) if other == reason));
            notes.push(format!(
                "the colour profile in {} {reason}, so that colours may be off: save as sRGB",
                Names(&files)
            ));
        }
    }
    notes
}

/// Everything in the folder, sorted by name.
fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn inspect(path: PathBuf, options: &Options) -> Entry {
    if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
        return Entry::Skipped(Rejected { path, reason: "is hidden".to_owned() });
    }
    let unusable = |path, reason| Entry::Unusable(Rejected { path, reason });
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) => return unusable(path, unreadable(&error)),
    };
    if !metadata.is_file() {
        let reason = if metadata.is_dir() { "is a sub-folder" } else { "is not a file" };
        return Entry::Skipped(Rejected { path, reason: reason.to_owned() });
    }
    let head = match head(&path) {
        Ok(head) => head,
        Err(error) => return unusable(path, unreadable(&error)),
    };
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let format = match Contents::of(&extension, &head) {
        Contents::Image(format) => format,
        Contents::Unusable(reason) => return unusable(path, reason),
        Contents::Other => {
            let reason = "is not a JPEG, PNG, WebP, BMP, GIF or TIFF image".to_owned();
            return Entry::Skipped(Rejected { path, reason });
        }
    };
    if metadata.len() > MAX_FILE_BYTES {
        return unusable(path, format!("has {} MB: save it smaller", metadata.len() / 1_000_000));
    }
    let size = limits::read_at_most(&path, MAX_FILE_BYTES)
        .map_err(|error| unreadable(&error))
        .and_then(|bytes| decode::size(&bytes, format));
    match size {
        Ok(size) => Entry::Photo { path, format, pixels: kept_pixels(size, options) },
        Err(reason) => unusable(path, reason),
    }
}

fn read(path: PathBuf, format: ImageFormat, options: &Options) -> Result<(Photo, Profile), Rejected> {
    let result = || -> Result<_, String> {
        let bytes = limits::read_at_most(&path, MAX_FILE_BYTES).map_err(|error| unreadable(&error))?;
        let (mut pixels, profile) = decode::decode(&bytes, format, options.background)?;
        if let Some(short) = shrinks_to(pixels.dimensions(), options) {
            let (width, height) = with_short_side(pixels.width(), pixels.height(), short);
            let [width, height] = [width, height].map(|side| side.try_into().unwrap_or(u32::MAX));
            pixels = resize(&pixels, width, height, Filter::Bilinear);
        }
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Ok((sha256, pixels, profile))
    };
    match result() {
        Ok((sha256, pixels, profile)) => Ok((Photo { path, sha256, pixels }, profile)),
        Err(reason) => Err(Rejected { path, reason }),
    }
}

/// The new length of the shorter side where it is to be shrunk.
fn shrinks_to((width, height): (u32, u32), options: &Options) -> Option<u32> {
    options.max_short_side.filter(|most| *most > 0 && *most < width.min(height))
}

fn kept_pixels((width, height): (u32, u32), options: &Options) -> u64 {
    let (width, height) = match shrinks_to((width, height), options) {
        Some(short) => with_short_side(width, height, short),
        None => (u64::from(width), u64::from(height)),
    };
    width * height
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}
