//! What a run leaves in its folder for people and for other programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use images::Grid;
use photos::{AugmentedCrop, Photo};
use runs::{SampleTime, Stage, TrainConfig, Validation, layout};
use sampling::{NotFinite, Request, Settings};

use crate::Trainer;
use crate::checkpoint;
use crate::prior::PriorImages;

/// Side of an image on the contact sheet in pixels.
const THUMBNAIL: u32 = 192;

/// The files that a run writes for people and other programs.
#[derive(Debug)]
pub(crate) struct Outputs {
    folder: PathBuf,
}

impl Outputs {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// `contact_sheet.png`: the first augmented crops that the model is trained on.
    pub(crate) fn contact_sheet(&self, crops: &[(&Photo, AugmentedCrop)]) -> Result<()> {
        let sheet = photos::contact_sheet(crops, 4, THUMBNAIL);
        images::save_png(&self.folder.join(layout::CONTACT_SHEET), &sheet.draw(), &[])
    }

    /// `learned_embeds.safetensors`.
    pub(crate) fn embedding(&self, trainer: &Trainer) -> Result<()> {
        let path = self.folder.join(layout::EMBEDDING);
        export::save_embeddings(&path, &trainer.config.placeholder, &trainer.subject.embedding)
    }

    /// `stages/cross_attention.safetensors`, by which the stages can be compared when the run is over.
    pub(crate) fn cross_attention(&self, trainer: &Trainer) -> Result<()> {
        let path = self.folder.join(layout::CROSS_ATTENTION);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        weights::save(&path, trainer.trained(Stage::CrossAttention))
    }

    /// `unet/`: config and weights.
    pub(crate) fn unet(&self, trainer: &Trainer) -> Result<()> {
        let folder = self.folder.join(layout::UNET);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = serde_json::to_vec_pretty(trainer.pipeline.unet.config())?;
        atomic::write(&folder.join("config.json"), config)?;
        trainer.pipeline.parameters.unet.save(&self.folder.join(layout::UNET_WEIGHTS))
    }

    /// Whether the run has learned all, and saved it.
    pub(crate) fn learned(&self) -> bool {
        [layout::EMBEDDING, layout::UNET_WEIGHTS].iter().all(|file| self.folder.join(file).exists())
    }

    /// Loads the learned weights into the trainer.
    pub(crate) fn restore(&self, trainer: &Trainer) -> Result<()> {
        let embedding = [(trainer.config.placeholder.as_str(), &trainer.subject.embedding)];
        checkpoint::restore(&embedding, &self.folder.join(layout::EMBEDDING))?;
        let unet: Vec<_> = trainer.pipeline.parameters.unet.iter().collect();
        checkpoint::restore(&unet, &self.folder.join(layout::UNET_WEIGHTS))
    }

    /// `validation/`: the prompts at one step of a stage. Returns notes on images that cannot be generated.
    pub(crate) fn validation(&self, trainer: &Trainer, stage: Stage, step: usize) -> Result<Vec<String>> {
        let folder = self.folder.join(layout::VALIDATION);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let time = SampleTime { number: stage.number(), stage: stage.name().to_owned(), step };
        grid_of_prompts(trainer, &folder.join(format!("{time}.png")))
    }

    /// `curves.png`: the losses over all steps of the log.
    pub(crate) fn curves(&self) -> Result<()> {
        let curves = runs::draw_curves(&runs::read_log(&self.folder)?);
        images::save_png(&self.folder.join(layout::CURVES), &curves, &[])
    }

    /// `samples.png`: the prompts at the end. Returns notes on images that cannot be generated.
    pub(crate) fn samples(&self, trainer: &Trainer) -> Result<Vec<String>> {
        grid_of_prompts(trainer, &self.folder.join(layout::SAMPLES))
    }
}

/// Checks that augmented crops, validation images and class images can have their size and steps.
pub(crate) fn check(trainer: &Trainer) -> Result<()> {
    let Trainer { config, pipeline, .. } = trainer;
    let check = |settings: &Settings| pipeline.check(&[Request::new("", 0)], settings);
    let resolution = i64::from(config.augmentation.resolution);
    let crops = Settings { height: resolution, width: resolution, ..pipeline.default_settings() };
    check(&crops).context("augmentation.resolution (--resolution)")?;
    check(&settings(trainer)).context("validation")?;
    if let Some(prior) = &config.prior {
        check(&PriorImages::settings(pipeline, config, prior)).context("prior")?;
    }
    Ok(())
}

/// How validation images are generated.
pub(crate) fn settings(trainer: &Trainer) -> Settings {
    let Validation { steps, guidance_scale, .. } = trainer.config.validation;
    Settings { steps, guidance_scale, ..trainer.pipeline.default_settings() }
}

/// Writes one image of each validation prompt, from the configured seed; no random number of the run is touched. An image
/// that is not finite is left out and noted: a run does not end for what is only looked at, nor for a guidance scale that
/// could not be changed when it resumes.
fn grid_of_prompts(trainer: &Trainer, file: &Path) -> Result<Vec<String>> {
    let TrainConfig { validation, .. } = &trainer.config;
    let settings = settings(trainer);
    let mut grid = Grid::new(validation.prompts.len().min(4));
    let mut notes = Vec::new();
    for prompt in &validation.prompts {
        let prompt = trainer.config.fill(prompt);
        match trainer.pipeline.generate(&[Request::new(&prompt, validation.seed)], &settings, &mut |_| {}) {
            Ok(images) => images.into_iter().for_each(|image| grid.push(image, &prompt)),
            Err(error) if error.is::<NotFinite>() => {
                notes.push(format!("{} goes without one image: {error}", file.display()));
            }
            Err(error) => return Err(error),
        }
    }
    if notes.len() < validation.prompts.len() || notes.is_empty() {
        images::save_generated(file, &grid.draw(), &[])?;
    }
    Ok(notes)
}
