//! Pictures of the category for prior preservation: those that the user has, and as many more as are wanted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use libtorch::random;
use photos::{Photo, PhotoFolder, Rejected};
use runs::{ModelFingerprint, Prior, TrainConfig, layout};
use sampling::{Pipeline, Request, Settings};

use crate::Event;

/// The text in a drawn picture that says how it came about.
const PARAMETERS: &str = "parameters";

/// The folder of the pictures, and what is still to be drawn.
#[derive(Debug)]
pub(crate) struct PriorPictures {
    folder: PathBuf,
    found: Vec<Photo>,
    /// What the user should know of them, and of what else is in the folder.
    pub(crate) notes: Vec<String>,
    /// How many of them, or of those still to come, are drawn.
    drawn: usize,
    /// The model that draws, by its contents.
    model: String,
}

impl PriorPictures {
    /// Reads what is there; the folder need not exist. What is missing is drawn by the model `base`.
    ///
    /// # Errors
    /// When a picture in it is damaged.
    pub(crate) fn open(prior: &Prior, run: &Path, base: &ModelFingerprint) -> Result<Self> {
        let folder = prior.folder.clone().unwrap_or_else(|| run.join(layout::PRIOR));
        let (found, notes) = match PhotoFolder::open(&folder) {
            Ok(PhotoFolder { photos, notes, .. }) => (photos, notes),
            Err(photos::Error::NoPhotos { skipped, .. }) => (Vec::new(), skipped.iter().map(Rejected::note).collect()),
            Err(_) if !folder.exists() => Default::default(),
            Err(error) => return Err(error).context("the pictures for prior preservation"),
        };
        let mut opened = Self { folder, found, notes, drawn: 0, model: base.hash() };
        opened.drawn = prior.images.saturating_sub(opened.own().count());
        Ok(opened)
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many are still to be drawn.
    pub(crate) fn missing(&self) -> usize {
        let drawn = |photo: &&Photo| drawn_index(&photo.name()).is_some_and(|index| index < self.drawn);
        self.drawn - self.found.iter().filter(drawn).count()
    }

    /// The user's pictures.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Photo> {
        self.found.iter().filter(|photo| drawn_index(&photo.name()).is_none())
    }

    /// How pictures are drawn: in the size that the model was trained for, with the guidance that suits it.
    pub(crate) fn settings(pipeline: &Pipeline, config: &TrainConfig, prior: &Prior) -> Settings {
        let guidance_scale = config.validation.guidance_scale;
        Settings { steps: prior.steps, guidance_scale, ..pipeline.default_settings() }
    }

    /// Draws what is missing with a model that has learned nothing yet, until `stop` says so. Returns whether all is
    /// there.
    ///
    /// Each picture is drawn alone, from a seed of its own: it is the same whichever were there before.
    ///
    /// # Errors
    /// When a picture cannot be drawn or written, or one that is there was drawn otherwise.
    pub(crate) fn draw(
        &mut self,
        pipeline: &Pipeline,
        config: &TrainConfig,
        prior: &Prior,
        stop: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Event),
    ) -> Result<bool> {
        let files = (0..self.drawn).map(|index| (index, self.folder.join(name(index))));
        let prompt = config.fill(&prior.prompt);
        let settings = Self::settings(pipeline, config, prior);
        let seed = |index: usize| random::derive(config.seed, "prior pictures", index as u64);
        // As the others write it, with the model, on which a picture depends as well, wherever it is.
        let parameters = |index: usize| {
            format!(
                "{prompt}\nSteps: {}, Guidance scale: {}, Seed: {}, Size: {}x{}, Model hash: {}",
                settings.steps,
                settings.guidance_scale,
                seed(index),
                settings.width,
                settings.height,
                sampling::quoted(&self.model),
            )
        };
        let (there, missing): (Vec<_>, Vec<_>) = files.partition(|(_, file): &(usize, PathBuf)| file.exists());
        for (index, file) in there {
            let texts = images::png_texts(&file)?;
            let (_, drawn_by) = texts.into_iter().find(|(key, _)| key == PARAMETERS).unwrap_or_default();
            ensure!(
                drawn_by == parameters(index),
                "{} was drawn for another run, by {drawn_by:?} instead of {:?}; give this run another --prior-folder",
                file.display(),
                parameters(index),
            );
        }
        if missing.is_empty() {
            return Ok(true);
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        let pictures = self.drawn as u64;
        let before = pictures - missing.len() as u64;
        watch(Event::Prior { done: before, images: pictures });
        for (done, (index, file)) in (before + 1..).zip(missing) {
            if stop() {
                return Ok(false);
            }
            let request = Request::new(&prompt, seed(index));
            let drawn = pipeline.generate(&[request], &settings, &mut |_| {})?;
            for picture in drawn {
                images::save_generated(&file, &picture, &[(PARAMETERS, &parameters(index))])?;
            }
            watch(Event::Prior { done, images: pictures });
        }
        self.found = PhotoFolder::open(&self.folder)?.photos;
        Ok(true)
    }

    /// The user's pictures and as many drawn ones as are wanted: another run may have put more into the same folder.
    pub(crate) fn into_photos(self) -> Vec<Photo> {
        let wanted = |photo: &Photo| drawn_index(&photo.name()).is_none_or(|index| index < self.drawn);
        self.found.into_iter().filter(wanted).collect()
    }
}

/// The file of a drawn picture.
fn name(index: usize) -> String {
    format!("drawn-{index:05}.png")
}

/// The number of a drawn picture; none of the user's own.
fn drawn_index(name: &str) -> Option<usize> {
    name.strip_prefix("drawn-")?.strip_suffix(".png")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_run_has_drawn_more_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["drawn-00000.png", "drawn-00001.png", "drawn-00002.png", "mine.png"] {
            images::RgbImage::new(64, 64).save(folder.path().join(file)).unwrap();
        }
        let prior = Prior { images: 3, folder: Some(folder.path().to_owned()), ..Prior::default() };
        let base = ModelFingerprint { name: String::new(), sha256: [].into() };
        let opened = PriorPictures::open(&prior, Path::new("nowhere"), &base).unwrap();
        assert_eq!(opened.missing(), 0);
        let photos = opened.into_photos();
        let names: Vec<_> = photos.iter().map(Photo::name).collect();
        assert_eq!(names, ["drawn-00000.png", "drawn-00001.png", "mine.png"]);
    }
}
