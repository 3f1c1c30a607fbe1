//! A folder of images that a model has generated, or is still to generate.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use distributed::Group;
use prompts::PlannedImage;
use runs::{GalleryConfig, layout};
use sampling::{Pipeline, Request, Settings, Step};

use crate::GeneratedImage;

/// Images in a folder, which are generated where they are missing. Each is written when its batch is done, so work that was
/// interrupted resumes from there. One process at a time generates.
#[derive(Debug)]
pub struct Gallery {
    folder: PathBuf,
    config: GalleryConfig,
    images: Vec<PlannedImage>,
    /// Indices of images.
    missing: Vec<usize>,
    incomplete: Vec<PathBuf>,
    note: Option<String>,
}

/// How far [`Gallery::generate`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GalleryProgress {
    /// The batch that is generated, counted from 1.
    pub batch: usize,
    /// All batches.
    pub batches: usize,
    /// The denoising step in it.
    pub step: Step,
}

/// What has the name of an image.
enum Found {
    Nothing,
    HalfWritten,
    ImageFile(Option<String>),
    Other,
}

const PARAMETERS: &str = "parameters";

impl Gallery {
    /// Looks what is in the folder already, which need not exist; nothing is written.
    ///
    /// # Errors
    /// When there are images of another configuration, or something else has the name of an image.
    pub fn open(folder: &Path, images: Vec<PlannedImage>, config: GalleryConfig) -> Result<Self> {
        let mut gallery =
            Self { folder: folder.to_owned(), config, images, missing: Vec::new(), incomplete: Vec::new(), note: None };
        gallery.look()?;
        Ok(gallery)
    }

    /// How many images are still to be generated.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// The files that are incomplete, as after a copy that was interrupted; they are regenerated.
    pub fn incomplete(&self) -> &[PathBuf] {
        &self.incomplete
    }

    /// What the user should know of the lock on the folder, once it has been written to; see [`runs::Lock::note`].
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The images, as [`evaluate_images`](crate::evaluate_images) takes them.
    pub fn images(&self) -> Vec<GeneratedImage> {
        let generated =
            |image: &PlannedImage| GeneratedImage { path: self.path(image), prompt: image.prompt, seed: image.seed };
        self.images.iter().map(generated).collect()
    }

    /// What users of other programs would not expect of the prompts that are still missing, once each.
    ///
    /// # Errors
    /// When a prompt asks for a subject that the model has not learned.
    pub fn prompt_notes(&self, pipeline: &Pipeline) -> Result<BTreeSet<String>> {
        let notes = self.missing_images().into_iter().map(|image| pipeline.prompt_notes(&image.text));
        Ok(notes.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Generates what is missing, `batch_size` images at once; `on_step` is told after each denoising step.
    ///
    /// # Errors
    /// Settings that the model cannot follow (then nothing is written), another process that writes into the folder or has
    /// generated with another configuration, or a full disk.
    pub fn generate(
        &mut self,
        pipeline: &Pipeline,
        batch_size: usize,
        on_step: &mut dyn FnMut(GalleryProgress),
    ) -> Result<()> {
        self.generate_among(&Group::alone(), pipeline, batch_size, on_step)
    }

    /// The same by several processes, which share the images. They have looked at the folder before any of them has written there.
    ///
    /// # Errors
    /// As [`Gallery::generate`], or when another process is lost.
    pub fn generate_among(
        &mut self,
        processes: &Group,
        pipeline: &Pipeline,
        batch_size: usize,
        on_step: &mut dyn FnMut(GalleryProgress),
    ) -> Result<()> {
        let settings = Settings { scheduler: Some(self.config.scheduler), ..self.config.settings.clone() };
        let missing = self.missing_images();
        let Some(first) = missing.first() else { return Ok(()) };
        pipeline.check(&[request(first)], &settings)?;
        for image in &missing {
            pipeline.resolve(&image.text)?;
        }
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot make the folder {}", self.folder.display()))?;
        // Rank 0 holds the folder for all.
        let lock = processes.leads().then(|| runs::Lock::take(&self.folder)).transpose()?;
        self.note = lock.as_ref().and_then(|lock| lock.note()).map(str::to_owned);
        // Another process may have generated some since this one looked.
        self.look()?;
        if processes.leads() {
            self.config.write(&self.folder)?;
        }
        processes.wait()?;
        // By their numbers, in all processes the same.
        let is_own = |index: &&usize| **index % processes.size() == processes.rank();
        let missing: Vec<&PlannedImage> =
            self.missing.iter().filter(is_own).map(|&index| &self.images[index]).collect();
        let batches = missing.chunks(batch_size.max(1));
        let count = batches.len();
        for (batch, images) in batches.enumerate() {
            let requests: Vec<Request> = images.iter().map(|image| request(image)).collect();
            let mut on_step = |step| on_step(GalleryProgress { batch: batch + 1, batches: count, step });
            let generated = pipeline.generate(&requests, &settings, &mut on_step)?;
            for (image, pixels) in images.iter().zip(generated) {
                images::save_generated(&self.path(image), &pixels, &[(PARAMETERS, &self.parameters(image))])?;
            }
        }
        processes.wait()?;
        self.missing.clear();
        Ok(())
    }

    /// Finds out what is there.
    fn look(&mut self) -> Result<()> {
        (self.missing, self.incomplete) = (Vec::new(), Vec::new());
        self.compare_configs()?;
        for (index, image) in self.images.iter().enumerate() {
            let path = self.path(image);
            match Found::at(&path).with_context(|| format!("cannot read {}", path.display()))? {
                Found::Nothing => self.missing.push(index),
                Found::HalfWritten => {
                    self.missing.push(index);
                    self.incomplete.push(path);
                }
                Found::ImageFile(Some(parameters)) if parameters == self.parameters(image) => {}
                Found::ImageFile(Some(parameters)) => bail!(
                    "{} shows {:?} and not {:?}: remove it to have it regenerated, or give another --out",
                    path.display(),
                    parameters.replace('\n', ", "),
                    self.parameters(image).replace('\n', ", ")
                ),
                Found::ImageFile(None) | Found::Other => bail!(
                    "{} has the name of an image of this evaluation, but was not generated by it: move it away, or give \
                     another --out",
                    path.display()
                ),
            }
        }
        Ok(())
    }

    fn missing_images(&self) -> Vec<&PlannedImage> {
        self.missing.iter().map(|&index| &self.images[index]).collect()
    }

    fn path(&self, image: &PlannedImage) -> PathBuf {
        self.folder.join(image.file_name())
    }

    fn parameters(&self, image: &PlannedImage) -> String {
        let GalleryConfig { settings, scheduler, model, .. } = &self.config;
        request(image).describe(settings, scheduler.class_name(), model)
    }

    fn compare_configs(&self) -> Result<()> {
        let Some(old) = GalleryConfig::read(&self.folder).with_context(|| {
            format!("remove {} if the images beside it may be replaced", self.folder.join(layout::GALLERY).display())
        })?
        else {
            return Ok(());
        };
        let differences = runs::differences(&serde_json::to_value(old)?, &serde_json::to_value(&self.config)?);
        if !differences.is_empty() {
            bail!(
                "the images in {} were generated in another way: {}; give another --out, or remove that folder to \
                 regenerate them all",
                self.folder.display(),
                differences.join("; ")
            );
        }
        Ok(())
    }
}

impl Found {
    fn at(path: &Path) -> std::io::Result<Self> {
        const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
        /// An empty chunk of this name, and its checksum.
        const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
        let mut file = match limits::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Nothing),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Ok(Self::Other);
        }
        let mut start = Vec::new();
        (&mut file).take(SIGNATURE.len() as u64).read_to_end(&mut start)?;
        if start.len() < SIGNATURE.len() {
            return Ok(if SIGNATURE.starts_with(&start) { Self::HalfWritten } else { Self::Other });
        }
        if start != SIGNATURE {
            return Ok(Self::Other);
        }
        let Ok(texts) = ::images::png_texts(path) else { return Ok(Self::HalfWritten) };
        let mut end = [0; END.len()];
        file.seek(SeekFrom::End(-(END.len() as i64)))?;
        file.read_exact(&mut end)?;
        if end != END {
            return Ok(Self::HalfWritten);
        }
        Ok(Self::ImageFile(texts.into_iter().find(|(keyword, _)| keyword == PARAMETERS).map(|(_, text)| text)))
    }
}

fn request(image: &PlannedImage) -> Request {
    Request::new(&image.text, image.seed)
}
