//! What a run leaves in its folder for people and for other programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use images::{Grid, RgbImage};
use photos::{Crop, Photo};
use runs::{Group, Phase, SampleTime, StopRecord, TrainConfig, layout};
use sampling::{NotFinite, Request, Settings};

use crate::Trainer;
use crate::checkpoint;
use crate::phases::groups_until;
use crate::prior::PriorImages;
use crate::text_alignment::TextAlignment;

/// Side of an image on the contact sheet in pixels.
const THUMBNAIL: u32 = 192;

/// Augmented crops in a grid.
pub(crate) fn contact_sheet(crops: &[(&Photo, Crop)]) -> RgbImage {
    photos::contact_sheet(crops, 4, THUMBNAIL).draw()
}

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
    pub(crate) fn contact_sheet(&self, crops: &[(&Photo, Crop)]) -> Result<()> {
        images::save_png(&self.folder.join(layout::CONTACT_SHEET), &contact_sheet(crops), &[])
    }

    /// The groups that a finished run has files of, in the order in which they are written: what its phases have trained, and
    /// the embedding of a new token that none has.
    pub(crate) fn groups(config: &TrainConfig) -> Vec<Group> {
        let mut groups = groups_until(config, config.phases.len());
        if config.new_token && !groups.contains(&Group::Embedding) {
            groups.insert(0, Group::Embedding);
        }
        groups
    }

    /// The groups that are written after a phase: what it has changed and later ones change again.
    pub(crate) fn repeated(config: &TrainConfig, number: usize) -> Vec<Group> {
        let mut phases = config.phases.values().skip(number);
        let Some(phase) = phases.next() else { return Vec::new() };
        let later: Vec<&Phase> = phases.collect();
        let mut groups = groups_until(config, number);
        groups.retain(|group| phase.changes(*group) && later.iter().any(|later| later.changes(*group)));
        groups
    }

    /// A group's file in the folder of a finished run.
    pub(crate) fn file(group: Group) -> &'static str {
        match group {
            Group::Embedding => layout::EMBEDDING,
            Group::TextEncoder => layout::TEXT_ENCODER_WEIGHTS,
            Group::KeysValues | Group::CrossAttention => layout::UNET_PART,
            Group::Unet => layout::UNET_WEIGHTS,
            Group::Adapter => layout::ADAPTER,
        }
    }

    /// A group's file of after a phase, in the folder of a run.
    pub(crate) fn file_after(phase: &str, group: Group) -> PathBuf {
        Path::new(layout::PHASES).join(phase).join(format!("{group}.safetensors"))
    }

    /// What a phase has trained and later ones train again, by which the phases can be compared when the run is over.
    pub(crate) fn after(&self, trainer: &Trainer, number: usize) -> Result<()> {
        let (name, _) = trainer.phase(number)?;
        for group in Self::repeated(&trainer.config, number) {
            let path = self.folder.join(Self::file_after(name, group));
            make_parent(&path)?;
            weights::save(&path, trainer.parameters(group))?;
        }
        Ok(())
    }

    /// The file of a group, with the model's config beside it where the group is a model's.
    pub(crate) fn group(&self, trainer: &Trainer, group: Group) -> Result<()> {
        let path = self.folder.join(Self::file(group));
        make_parent(&path)?;
        let pipeline = &trainer.pipeline;
        match (group, &trainer.learned.embedding) {
            (Group::Embedding, Some(rows)) if trainer.learned.more.is_empty() => {
                let widths = pipeline.token_widths();
                return export::save_embeddings(&path, &trainer.config.placeholder, rows, &widths);
            }
            (Group::TextEncoder, _) => {
                let config = serde_json::to_vec_pretty(pipeline.text_encoder.config())?;
                atomic::write(&path.with_file_name("config.json"), config)?;
            }
            (Group::Unet, _) => {
                let config = serde_json::to_vec_pretty(pipeline.unet.config())?;
                atomic::write(&path.with_file_name("config.json"), config)?;
            }
            _ => {}
        }
        weights::save(&path, trainer.parameters(group))
    }

    /// Whether the run has learned all, and saved it.
    pub(crate) fn learned(&self, config: &TrainConfig) -> bool {
        Self::groups(config).into_iter().all(|group| self.folder.join(Self::file(group)).exists())
    }

    /// Loads the learned weights into the trainer.
    pub(crate) fn restore(&self, trainer: &Trainer) -> Result<()> {
        Self::groups(&trainer.config)
            .into_iter()
            .try_for_each(|group| checkpoint::restore(&trainer.parameters(group), &self.folder.join(Self::file(group))))
    }

    /// The file in `validation/` with the subject's attention at one step of a phase.
    pub(crate) fn attention_file(&self, trainer: &Trainer, number: usize, step: usize) -> Result<PathBuf> {
        Ok(self.folder.join(layout::VALIDATION).join(time(trainer, number, step)?.attention_file()))
    }

    /// `validation/`: the prompts at one step of a phase. Returns notes on images that cannot be generated.
    pub(crate) fn validation(&self, trainer: &Trainer, number: usize, step: usize) -> Result<Vec<String>> {
        let folder = self.folder.join(layout::VALIDATION);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        grid_of_prompts(trainer, &folder.join(format!("{}.png", time(trainer, number, step)?)))
    }

    /// `curves.png`: the losses over all steps of the log, and what `stop` has measured.
    pub(crate) fn curves(&self, config: &TrainConfig) -> Result<()> {
        let mut curves = runs::curves(&runs::read_log(&self.folder)?);
        if let (Some(stop), Some(record)) = (&config.stop, StopRecord::read(&self.folder)?) {
            curves.extend(record.curves(stop.clip().map(|clip| clip.floor)));
        }
        images::save_png(&self.folder.join(layout::CURVES), &runs::draw_curves(&curves), &[])
    }

    /// `samples.png`: the prompts at the end. Returns notes on images that cannot be generated.
    pub(crate) fn samples(&self, trainer: &Trainer) -> Result<Vec<String>> {
        grid_of_prompts(trainer, &self.folder.join(layout::SAMPLES))
    }
}

/// A step of a phase, of which `number` counts from 0.
fn time(trainer: &Trainer, number: usize, step: usize) -> Result<SampleTime> {
    Ok(SampleTime { number: number as u64 + 1, phase: trainer.phase(number)?.0.to_owned(), step })
}

pub(crate) fn make_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Checks that augmented crops, validation images and class images can have their size and steps.
pub(crate) fn check(trainer: &Trainer) -> Result<()> {
    let Trainer { config, pipeline, .. } = trainer;
    let check = |settings: &Settings| pipeline.check(&[Request::new("", 0)], settings);
    let resolution = i64::from(config.augmentation.resolution);
    let crops = Settings { height: resolution, width: resolution, ..pipeline.default_settings() };
    check(&crops).context("augmentation.resolution (--resolution)")?;
    check(&settings(trainer)).context("validation")?;
    if let Some(clip) = config.stop.as_ref().and_then(runs::Stop::clip) {
        check(&TextAlignment::settings(pipeline, config, clip)).context("stop.clip")?;
    }
    if let Some(prior) = &config.prior {
        check(&PriorImages::settings(pipeline, config, prior)).context("prior")?;
    }
    Ok(())
}

/// How validation images are generated.
pub(crate) fn settings(trainer: &Trainer) -> Settings {
    let Trainer { config: TrainConfig { validation, .. }, pipeline, .. } = trainer;
    validation.sampler(&Settings { steps: validation.steps, ..pipeline.default_settings() })
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
