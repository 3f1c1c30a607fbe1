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

use crate::augmentation::Augmentation;
use crate::caption::Caption;
use crate::companions::Companions;
use crate::contents::{Contents, HEAD};
use crate::decode;
use crate::error::{Error, Names, Rejected};
use crate::icc::Profile;
use crate::mask::Mask;
use crate::repeats::Repeats;

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
    /// Where a folder has no photos, read those in its folders of repeats, such as `10_dog`; on by default.
    pub repeats: bool,
    /// Read the caption beside each photo, `NAME.txt` or `NAME.caption`, which every photo must have.
    pub captions: bool,
    /// Read masks: `NAME-masklabel.png` (OneTrainer) or another mask by its name beside the photo, else its alpha channel.
    pub masks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { background: Some([255; 3]), max_short_side: None, repeats: true, captions: false, masks: false }
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
    /// Its caption, if captions were asked for.
    pub caption: Option<Caption>,
    /// Where its subject is, if masks were asked for and it has one.
    pub mask: Option<Mask>,
}

impl Photo {
    /// One that is no file, with nothing beside it, such as those of tests.
    pub fn new(path: impl Into<PathBuf>, pixels: RgbImage) -> Self {
        Self { path: path.into(), sha256: String::new(), pixels, caption: None, mask: None }
    }

    /// Reads a single file as those of a folder are read.
    ///
    /// # Errors
    /// When the file cannot be read or is not a usable image.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, Rejected> {
        let path = path.as_ref();
        Self::open_alone(path, &beside(path, options), options).map(|(photo, _)| photo)
    }

    fn open_alone(path: &Path, companions: &Companions, options: &Options) -> Result<(Self, Profile), Rejected> {
        let (path, format) = usable(path, options)?;
        read(path, format, companions, options)
    }

    /// Its central square, resized to `side`, as [`Augmentation::none`] crops it.
    pub fn square(&self, side: u32) -> RgbImage {
        let (width, height) = self.pixels.dimensions();
        Augmentation::none(side).sample(0, width, height).render(&self.pixels)
    }

    /// The file's name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().display().to_string()
    }

    /// The files beside it that are used with it.
    fn beside(&self) -> impl Iterator<Item = &Path> {
        let caption = self.caption.iter().map(|caption| caption.path.as_path());
        caption.chain(self.mask.iter().map(|mask| mask.path.as_path()))
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
    /// What the user should know, in sentences: files that are skipped, captions and masks that are not used, and colours that
    /// were converted or could not be.
    pub notes: Vec<String>,
}

/// An entry of the folder, before anything is decoded.
enum Entry {
    Photo { path: PathBuf, format: ImageFormat, pixels: u64 },
    Unusable(Rejected),
    Skipped(Rejected),
}

impl PhotoFolder {
    /// Reads all photos of a folder, in parallel; or the photo alone, where `folder` is a file. Where the folder has no photos of
    /// its own, those in its folders of repeats, such as `10_dog`, are read.
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
    /// As [`PhotoFolder::open`]; when a caption or a mask that is asked for is missing or cannot be used.
    pub fn open_with(folder: impl AsRef<Path>, options: &Options) -> Result<Self, Error> {
        let folder = folder.as_ref();
        if folder.is_file() {
            return Self::alone(folder, options);
        }
        let unreadable = |source| Error::Folder { folder: folder.to_owned(), source };
        let paths = paths(folder).map_err(unreadable)?;
        let repeats = if options.repeats { Repeats::among(&paths) } else { Vec::new() };
        let mut found = match Self::read(folder, paths, options) {
            Err(Error::NoPhotos { skipped, .. }) if !repeats.is_empty() => {
                let folders = || repeats.iter().map(|repeats| repeats.folder.clone());
                if !Repeats::agree(&repeats) {
                    return Err(Error::Subjects { folder: folder.to_owned(), folders: folders().collect() });
                }
                let inner = folders().map(|folder| self::paths(&folder)).collect::<io::Result<Vec<_>>>();
                let mut found = Self::read(folder, inner.map_err(unreadable)?.concat(), options)?;
                let mut outer = skipped;
                outer.retain(|rejected| folders().all(|folder| folder != rejected.path));
                found.notes.splice(0..0, outer.iter().map(Rejected::note).chain([Repeats::note(&repeats)]));
                found.skipped.splice(0..0, outer);
                found
            }
            found => found?,
        };
        found.notes.extend(Repeats::of(folder).map(|named| Repeats::note(&[named])));
        Ok(found)
    }

    /// A single photo.
    fn alone(path: &Path, options: &Options) -> Result<Self, Error> {
        let companions = beside(path, options);
        let (photo, profile) = Photo::open_alone(path, &companions, options).map_err(Error::Photo)?;
        if options.masks && photo.mask.is_none() {
            return Err(Error::NoMasks { folder: path.to_owned() });
        }
        let photos = vec![photo];
        let notes = notes(&companions, &photos, &[profile], options);
        Ok(Self { photos, skipped: Vec::new(), notes })
    }

    /// All photos among `paths`, those of `folder`.
    fn read(folder: &Path, mut paths: Vec<PathBuf>, options: &Options) -> Result<Self, Error> {
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
        if options.masks {
            let orphan =
                |path: &PathBuf| Rejected { path: path.clone(), reason: "is a mask without its photo".to_owned() };
            unusable.extend(companions.orphans.iter().map(orphan));
        }
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
        let read = |(path, format, _)| read(path, format, &companions, options);
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
            let (photos, profiles): (Vec<_>, Vec<_>) = photos.into_iter().unzip();
            if options.masks && photos.iter().all(|photo| photo.mask.is_none()) {
                return Err(Error::NoMasks { folder: folder.to_owned() });
            }
            tracing::info!(folder = %folder.display(), photos = photos.len(), skipped = skipped.len(), "opened photos");
            let about = notes(&companions, &photos, &profiles, options);
            let notes = skipped.iter().map(Rejected::note).chain(about).collect();
            return Ok(Self { photos, skipped, notes });
        }
        unusable.sort_by(|a, b| a.path.cmp(&b.path));
        Err(Error::Unusable { folder: folder.to_owned(), photos: unusable, total })
    }
}

/// Notes on files beside photos and on photos' colours: one for each reason, however many files.
fn notes(companions: &Companions, photos: &[Photo], profiles: &[Profile], options: &Options) -> Vec<String> {
    let mut notes = Vec::new();
    let used: Vec<&Path> = photos.iter().flat_map(Photo::beside).collect();
    let unused = |files: &[PathBuf]| -> Vec<PathBuf> {
        files.iter().filter(|file| !used.contains(&file.as_path())).cloned().collect()
    };
    let [captions, masks] = [unused(&companions.captions), unused(&companions.masks)];
    let kinds = [("captions", &captions), ("masks", &masks)].into_iter().filter(|(_, files)| !files.is_empty());
    let kinds: Vec<String> = kinds.map(|(what, files)| format!("{what} ({})", Names(files))).collect();
    let instead = match (options.captions, options.masks) {
        (false, false) => ": training uses every photo as a whole, with the configured prompt",
        (true, false) if captions.is_empty() => ": training uses every photo as a whole",
        (false, true) if masks.is_empty() => ": training uses the configured prompt",
        _ => "",
    };
    if !kinds.is_empty() {
        notes.push(format!("{} are not used{instead}", kinds.join(" and ")));
    }
    if !companions.orphans.is_empty() {
        notes.push(format!("masks without their photos are ignored: {}", Names(&companions.orphans)));
    }
    if !companions.conditions.is_empty() {
        notes.push(format!("images to condition on are not used: {}", Names(&companions.conditions)));
    }
    let files = |of: &dyn Fn(&Photo) -> Option<PathBuf>| photos.iter().filter_map(of).collect::<Vec<_>>();
    let more = files(&|photo| Some(photo.caption.as_ref().filter(|caption| caption.has_more)?.path.clone()));
    if !more.is_empty() {
        notes.push(format!("of captions with several lines the first is used: {}", Names(&more)));
    }
    let animated = files(&|photo| decode::is_animated(&photo.path).then(|| photo.path.clone()));
    if !animated.is_empty() {
        notes.push(format!("of animated images the first frame is used: {}", Names(&animated)));
    }
    let whole = files(&|photo| (options.masks && photo.mask.is_none()).then(|| photo.path.clone()));
    if !whole.is_empty() {
        notes.push(format!("photos without a mask count as a whole: {}", Names(&whole)));
    }
    let with = |matches: &dyn Fn(&Profile) -> bool| -> Vec<PathBuf> {
        photos
            .iter()
            .zip(profiles)
            .filter(|(_, profile)| matches(profile))
            .map(|(photo, _)| photo.path.clone())
            .collect()
    };
    let converted = with(&|profile| *profile == Profile::Converted);
    if !converted.is_empty() {
        notes.push(format!("colours are converted from embedded colour profiles to sRGB: {}", Names(&converted)));
    }
    let mut reasons: Vec<&String> = Vec::new();
    for profile in profiles {
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

/// What is beside a single photo, where anything is asked for.
fn beside(photo: &Path, options: &Options) -> Companions {
    if !options.captions && !options.masks {
        return Companions::default();
    }
    let folder = photo.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = paths(folder).unwrap_or_default();
    let mut paths = names.iter().filter_map(|path| Some(photo.with_file_name(path.file_name()?))).collect();
    Companions::take(&mut paths).of(photo)
}

/// The format of an image that may be decoded.
fn usable(path: &Path, options: &Options) -> Result<(PathBuf, ImageFormat), Rejected> {
    match inspect(path.to_owned(), options) {
        Entry::Photo { path, format, .. } => Ok((path, format)),
        Entry::Unusable(rejected) | Entry::Skipped(rejected) => Err(rejected),
    }
}

fn read(
    path: PathBuf,
    format: ImageFormat,
    companions: &Companions,
    options: &Options,
) -> Result<(Photo, Profile), Rejected> {
    let of = |path: &Path| {
        let path = path.to_owned();
        move |reason| Rejected { path, reason }
    };
    let caption = match companions.caption(&path) {
        Some(file) if options.captions => Some(Caption::read(file).map_err(of(file))?),
        None if options.captions => {
            let file = path.with_extension("txt");
            return Err(of(&path)(format!(
                "has no caption: write {} beside it",
                file.file_name().unwrap_or_default().display()
            )));
        }
        _ => None,
    };
    let bytes = bytes(&path).map_err(of(&path))?;
    let decoded = decode::decode(&bytes, format, options.background).map_err(of(&path))?;
    let mut pixels = decoded.pixels;
    let mut mask = match companions.mask(&path) {
        _ if !options.masks => None,
        Some(file) => {
            let (file, format) = usable(file, options)?;
            let name = path.file_name().unwrap_or_default().display().to_string();
            let decoded =
                self::bytes(&file).and_then(|bytes| Mask::decode(&file, &bytes, format, &name, pixels.dimensions()));
            Some(decoded.map_err(of(&file))?)
        }
        None => decoded.alpha.map(|alpha| Mask::new(&path, &bytes, alpha)),
    };
    if let Some(short) = shrinks_to(pixels.dimensions(), options) {
        let (width, height) = with_short_side(pixels.width(), pixels.height(), short);
        let [width, height] = [width, height].map(|side| side.try_into().unwrap_or(u32::MAX));
        pixels = resize(&pixels, width, height, Filter::Bilinear);
        mask = mask.map(|mask| mask.shrunk(width, height));
    }
    let sha256 = hex::encode(Sha256::digest(&bytes));
    Ok((Photo { path, sha256, pixels, caption, mask }, decoded.profile))
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    limits::read_at_most(path, MAX_FILE_BYTES).map_err(|error| unreadable(&error))
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
