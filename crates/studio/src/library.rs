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

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use runs::{ImageEntry, LogReader, holds_run, layout};

use crate::folder::names;
use crate::image_logs::ImageLogs;
use crate::models::{self, Model};
use crate::name::Name;
use crate::source::Source;
use crate::trash::Trash;

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
    images: ImageLogs,
    pub(crate) trash: Trash,
    logs: Mutex<HashMap<PathBuf, LogReader>>,
}

impl Library {
    /// The library in a folder of runs, which is created if missing, with these models beside those in the folder of models.
    ///
    /// # Errors
    /// When the folder cannot be made, or a model is not found.
    pub(crate) fn open(runs: &Path, models: &[PathBuf]) -> Result<Self> {
        let failed = || format!("cannot use the folder of runs {}", runs.display());
        for folder in ["photos", "images", "plans", "exports"] {
            fs::create_dir_all(runs.join(".studio").join(folder)).with_context(failed)?;
        }
        let runs = fs::canonicalize(runs).with_context(failed)?;
        let models = models::find(models)?;
        let trash = Trash::open(runs.join(".studio/deleted"), &runs)?;
        let (known, images, logs) = (Mutex::default(), ImageLogs::default(), Mutex::default());
        Ok(Self { runs, models, known, images, trash, logs })
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
            let entries = self.images.of(&self.images_folder(&source)?)?;
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
        let entries = self.images.of(&self.images_folder(source)?)?;
        let found = entries.iter().find(|entry| entry.file == file);
        let entry = found.with_context(|| format!("there is no image {:?} of {source}", terminal::shortened(file)))?;
        Ok(GalleryImage { source: source.clone(), entry: entry.clone() })
    }
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
