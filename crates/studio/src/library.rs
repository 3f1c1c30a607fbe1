//! What is on the disk: runs, photos, models, images, and files for other programs.
//!
//! | place | what |
//! |---|---|
//! | `RUNS/NAME/` | a run, whoever has started it |
//! | `RUNS/.studio/photos/NAME/` | photos that were uploaded |
//! | `RUNS/.studio/images/MODEL/` | images of a base model |
//! | `RUNS/.studio/plans/NUMBER.png` | the contact sheet of what is planned |
//! | `RUNS/.studio/exports/RUN/` | files for other programs |
//! | `RUNS/.studio/deleted/` | what is being deleted |
//! | `RUNS/.studio/jobs.json`, `token` | the queue; what opens the page |

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Error, Result, bail, ensure};
use hub::{Hub, ModelKind};
use runs::{ImageEntry, LogReader, holds_run, layout, read_images};

use crate::name::Name;

/// A base model that pages offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) name: Name,
    /// A folder or a file.
    pub(crate) path: PathBuf,
}

/// What images are generated with, as pages name it: `run:NAME` or `model:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Source {
    Run(Name),
    Model(Name),
}

impl Source {
    pub(crate) fn name(&self) -> &Name {
        match self {
            Self::Run(name) | Self::Model(name) => name,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(name) => write!(f, "run:{name}"),
            Self::Model(name) => write!(f, "model:{name}"),
        }
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("run", name)) => Ok(Self::Run(name.parse()?)),
            Some(("model", name)) => Ok(Self::Model(name.parse()?)),
            _ => bail!("{:?} is neither run:NAME nor model:NAME", terminal::shortened(text)),
        }
    }
}

/// The images of a folder, as its log and the folder were when they were read.
struct Images {
    length: u64,
    changed: Option<SystemTime>,
    entries: Arc<Vec<ImageEntry>>,
}

/// Whether a folder holds a run, by its `config.json` as it was when that was read.
struct Known {
    changed: Option<SystemTime>,
    length: u64,
    holds_run: bool,
}

/// An image of the gallery.
#[derive(Debug, Clone)]
pub(crate) struct GalleryImage {
    pub(crate) source: Source,
    pub(crate) entry: ImageEntry,
}

impl GalleryImage {
    /// Where the page finds it.
    pub(crate) fn url(&self) -> String {
        format!("/images/{}/{}", crate::name::encoded(&self.source.to_string()), crate::name::encoded(&self.entry.file))
    }
}

/// The folder of runs, and what the studio keeps in it.
pub(crate) struct Library {
    runs: PathBuf,
    models: Vec<Model>,
    known: Mutex<HashMap<PathBuf, Known>>,
    images: Mutex<HashMap<PathBuf, Images>>,
    logs: Mutex<HashMap<PathBuf, LogReader>>,
}

impl Library {
    /// The library in a folder of runs, which is created if missing, with these models beside those in the folder of models.
    ///
    /// # Errors
    /// When the folder cannot be made, or a model is not found.
    pub(crate) fn open(runs: &Path, models: &[PathBuf]) -> Result<Self> {
        let failed = || format!("cannot use the folder of runs {}", runs.display());
        for folder in ["photos", "images", "plans", "exports", "deleted"] {
            fs::create_dir_all(runs.join(".studio").join(folder)).with_context(failed)?;
        }
        // What a studio that was killed has not finished.
        for entry in fs::read_dir(runs.join(".studio/deleted")).with_context(failed)?.flatten() {
            remove(&entry.path()).with_context(failed)?;
        }
        let runs = fs::canonicalize(runs).with_context(failed)?;
        let models = self::models(models)?;
        Ok(Self { runs, models, known: Mutex::default(), images: Mutex::default(), logs: Mutex::default() })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.runs
    }

    /// A place in the studio's own folder.
    pub(crate) fn own(&self, place: &str) -> PathBuf {
        self.runs.join(".studio").join(place)
    }

    /// All runs, the one that has changed last first.
    pub(crate) fn runs(&self) -> Vec<Name> {
        let mut runs: Vec<(SystemTime, Name)> = names(&self.runs)
            .into_iter()
            .filter_map(|name| {
                let folder = self.run(&name)?;
                let changed = |file| fs::metadata(folder.join(file)).and_then(|metadata| metadata.modified()).ok();
                Some((changed(layout::LOG).or_else(|| changed(layout::CONFIG))?, name))
            })
            .collect();
        runs.sort_by(|a, b| b.cmp(a));
        runs.into_iter().map(|(_, name)| name).collect()
    }

    /// The folder of a run, if there is one.
    pub(crate) fn run(&self, name: &Name) -> Option<PathBuf> {
        let folder = self.runs.join(name.as_str());
        let metadata = fs::metadata(folder.join(layout::CONFIG)).ok()?;
        let (changed, length) = (metadata.modified().ok(), metadata.len());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known.get(&folder).filter(|known| known.changed == changed && known.length == length);
        let holds = same.map_or_else(|| holds_run(&folder), |known| known.holds_run);
        known.insert(folder.clone(), Known { changed, length, holds_run: holds });
        holds.then_some(folder)
    }

    /// The folder of a run, which is to be there.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn known_run(&self, name: &Name) -> Result<PathBuf> {
        self.run(name).with_context(|| format!("there is no run {:?}", name.as_str()))
    }

    /// The folder of a run that is to be made.
    ///
    /// # Errors
    /// When there is something.
    pub(crate) fn new_run(&self, name: &Name) -> Result<PathBuf> {
        let folder = self.runs.join(name.as_str());
        let free = fs::read_dir(&folder).map_or(!folder.exists(), |mut entries| entries.next().is_none());
        ensure!(free, "there is already something called {:?} among the runs; choose another name", name.as_str());
        Ok(folder)
    }

    /// Looks at what a run has logged so far.
    ///
    /// # Errors
    /// When its log is damaged.
    pub(crate) fn log<T>(&self, run: &Path, look: impl FnOnce(&[runs::Entry]) -> T) -> Result<T> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let log = logs.entry(run.to_owned()).or_default();
        log.update(run)?;
        Ok(look(log.entries()))
    }

    /// All sets of photos by name.
    pub(crate) fn photo_sets(&self) -> Vec<Name> {
        names(&self.own("photos"))
    }

    /// The folder of a set of photos.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn photos(&self, name: &Name) -> Result<PathBuf> {
        let folder = self.own("photos").join(name.as_str());
        ensure!(folder.is_dir(), "there are no photos called {:?}", name.as_str());
        Ok(folder)
    }

    pub(crate) fn models(&self) -> &[Model] {
        &self.models
    }

    /// A base model by name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn model(&self, name: &Name) -> Result<&Model> {
        let found = self.models.iter().find(|model| model.name == *name);
        found.with_context(|| format!("there is no model {:?}", name.as_str()))
    }

    /// LoRA files that were exported, by their names.
    pub(crate) fn loras(&self) -> Vec<(Name, PathBuf)> {
        let folders = names(&self.own("exports")).into_iter().map(|run| self.exports(&run));
        let files = folders
            .flat_map(|folder| names(&folder).into_iter().map(move |name| (name.clone(), folder.join(name.as_str()))));
        files.filter(|(name, _)| name.as_str().ends_with("-lora.safetensors")).collect()
    }

    /// The folder of a run's files for other programs.
    pub(crate) fn exports(&self, run: &Name) -> PathBuf {
        self.own("exports").join(run.as_str())
    }

    /// One of a run's files for other programs, which may be a folder.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn export(&self, run: &Name, file: &Name) -> Result<PathBuf> {
        let path = self.exports(run).join(file.as_str());
        ensure!(path.exists(), "there is no file {:?} of {run}", file.as_str());
        Ok(path)
    }

    /// Moves something to where nobody looks for it; it is whole until then, and gone afterwards. Returns where it is.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub(crate) fn put_away(&self, path: &Path) -> Result<PathBuf> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).context("the system gives no random numbers for a name")?;
        let away = self.own("deleted").join(hex::encode(random));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        fs::rename(path, &away).with_context(|| format!("{name} cannot be deleted"))?;
        Ok(away)
    }

    /// Deletes a file, or a folder with all that is in it; of links only themselves.
    ///
    /// # Errors
    /// When it is not in the folder of runs, or cannot be deleted.
    pub(crate) fn delete(&self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let failed = || format!("{name} cannot be deleted");
        let folder = fs::canonicalize(path.parent().unwrap_or(path)).with_context(failed)?;
        ensure!(folder.starts_with(&self.runs), "{name} is outside the folder of runs");
        remove(path).with_context(failed)
    }

    /// The folder that a source's images go into.
    ///
    /// # Errors
    /// When there is no such run or model.
    pub(crate) fn images_folder(&self, source: &Source) -> Result<PathBuf> {
        match source {
            Source::Run(name) => Ok(self.known_run(name)?.join(layout::IMAGES)),
            Source::Model(name) => Ok(self.own("images").join(self.model(name)?.name.as_str())),
        }
    }

    /// Everything that has images or may get some: the runs, newest first, and the models.
    pub(crate) fn sources(&self) -> Vec<Source> {
        let models = self.models.iter().map(|model| Source::Model(model.name.clone()));
        self.runs().into_iter().map(Source::Run).chain(models).collect()
    }

    /// The generated images of all sources, or of one, newest first: so many after the first `skipped`, and how many there are.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub(crate) fn gallery(
        &self,
        of: Option<&Source>,
        skipped: usize,
        most: usize,
    ) -> Result<(Vec<GalleryImage>, usize)> {
        let sources = of.map_or_else(|| self.sources(), |source| vec![source.clone()]);
        let mut all: Vec<(f64, Source, Arc<Vec<ImageEntry>>, usize)> = Vec::new();
        for source in sources {
            let entries = self.entries(&self.images_folder(&source)?)?;
            all.extend((0..entries.len()).map(|at| (entries[at].time, source.clone(), entries.clone(), at)));
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| b.3.cmp(&a.3)));
        let page = all.iter().skip(skipped).take(most);
        let page =
            page.map(|(_, source, entries, at)| GalleryImage { source: source.clone(), entry: entries[*at].clone() });
        Ok((page.collect(), all.len()))
    }

    /// One generated image by its file.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn image(&self, source: &Source, file: &str) -> Result<GalleryImage> {
        let entries = self.entries(&self.images_folder(source)?)?;
        let found = entries.iter().find(|entry| entry.file == file);
        let entry = found.with_context(|| format!("there is no image {:?} of {source}", terminal::shortened(file)))?;
        Ok(GalleryImage { source: source.clone(), entry: entry.clone() })
    }

    /// The images in a folder by its log, without those whose files were deleted; both are read again when they have changed.
    fn entries(&self, folder: &Path) -> Result<Arc<Vec<ImageEntry>>> {
        let length = fs::metadata(folder.join(layout::IMAGE_LOG)).map_or(0, |metadata| metadata.len());
        let changed = fs::metadata(folder).and_then(|metadata| metadata.modified()).ok();
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
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

fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// The bytes of a file, or of all files in a folder; links are not followed.
pub(crate) fn bytes(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| bytes(&entry.path())).sum()
        }
        Ok(found) => found.len(),
        Err(_) => 0,
    }
}

/// The names in a folder that are no hidden ones, sorted.
pub(crate) fn names(folder: &Path) -> Vec<Name> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<Name> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    names.sort();
    names
}

/// A file that is really in a folder, as no name or link may lead to another.
///
/// # Errors
/// When it is not there, or elsewhere.
pub(crate) fn inside(folder: &Path, file: &str) -> Result<PathBuf> {
    let missing = || format!("there is no file {:?}", terminal::shortened(file));
    let path = fs::canonicalize(folder.join(file)).with_context(missing)?;
    let folder = fs::canonicalize(folder).with_context(missing)?;
    ensure!(path.starts_with(&folder) && path.is_file(), missing());
    Ok(path)
}

/// The models that were named, those in the folder of models that are there as a whole, and other models in that folder.
fn models(named: &[PathBuf]) -> Result<Vec<Model>> {
    let hub = Hub::from_env()?;
    let mut models: Vec<Model> = Vec::new();
    let mut add = |path: PathBuf| {
        let Ok(path) = fs::canonicalize(path) else { return };
        let name = path.file_name().and_then(|name| name.to_str()?.parse::<Name>().ok());
        if let Some(name) = name.filter(|name| models.iter().all(|model| model.name != *name)) {
            models.push(Model { name, path });
        }
    };
    for model in named {
        let found = if model.exists() {
            model.clone()
        } else {
            hub.resolve(&model.to_string_lossy(), ModelKind::Diffusion)?.path
        };
        add(found);
    }
    for name in names(hub.models()) {
        let path = hub.models().join(name.as_str());
        let is_file = path.is_file() && path.extension().is_some_and(|end| end == "safetensors");
        // A download that is not complete lacks files.
        let known = hub.list()?.into_iter().find(|listed| listed.model.name == name.as_str());
        let complete = known.is_none_or(|listed| listed.present == listed.model.files.len());
        if is_file || path.join("model_index.json").is_file() && complete {
            add(path);
        }
    }
    Ok(models)
}

#[cfg(test)]
mod tests {
    use runs::ImageFolder;

    use super::*;

    fn library() -> (tempfile::TempDir, Library) {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("some-model");
        fs::create_dir(&model).unwrap();
        let library = Library::open(&folder.path().join("runs"), &[model]).unwrap();
        (folder, library)
    }

    #[test]
    fn sources_are_names() {
        for text in ["run:my-dog", "model:sd2.1-base"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for text in ["", "run:", "run:../x", "model:/etc", "file:x", "my-dog", "run:.studio"] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_known_is_found() {
        let (folder, library) = library();
        let name = |name: &str| name.parse::<Name>().unwrap();
        assert_eq!(
            library.model(&name("some-model")).unwrap().path,
            fs::canonicalize(folder.path().join("some-model")).unwrap()
        );
        assert!(library.model(&name("other")).unwrap_err().to_string().contains("no model \"other\""));
        fs::create_dir_all(library.folder().join("no-run")).unwrap();
        assert!(library.run(&name("no-run")).is_none() && library.runs().is_empty());
        assert!(library.new_run(&name("no-run")).is_ok());
        fs::write(library.folder().join("no-run/file"), "").unwrap();
        assert!(library.new_run(&name("no-run")).unwrap_err().to_string().contains("choose another name"));
    }

    #[test]
    fn no_link_leads_out_of_a_folder() {
        let (folder, library) = library();
        fs::write(folder.path().join("secret"), "").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), library.folder().join("link")).unwrap();
        fs::write(library.folder().join("file"), "").unwrap();
        assert!(inside(library.folder(), "file").is_ok());
        for file in ["link", "../secret", "missing", "", ".", ".studio"] {
            assert!(inside(library.folder(), file).is_err(), "{file}");
        }
    }

    #[test]
    fn the_gallery_has_the_newest_images_first_and_grows() {
        let (_folder, library) = library();
        let source: Source = "model:some-model".parse().unwrap();
        let images = library.images_folder(&source).unwrap();
        let mut folder = ImageFolder::open(&images).unwrap();
        for seed in 0..3 {
            let entry = ImageEntry { seed, time: seed as f64, ..ImageEntry::default() };
            folder.add(&images::RgbImage::new(2, 2), "", entry).unwrap();
            let (page, total) = library.gallery(None, 0, 2).unwrap();
            assert_eq!((page[0].entry.seed, total), (seed, seed as usize + 1));
        }
        let (page, _) = library.gallery(Some(&source), 2, 2).unwrap();
        assert_eq!(page.iter().map(|image| image.entry.seed).collect::<Vec<_>>(), [0]);
        assert_eq!(page[0].url(), "/images/model%3Asome-model/0000-seed0.png");
        assert!(library.image(&source, "0001-seed1.png").is_ok());
        assert!(library.image(&source, "../../../token").is_err());
    }
}
