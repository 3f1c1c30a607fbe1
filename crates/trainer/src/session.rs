//! A whole run in its folder: photos in, a learned subject out.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use journal::{Entry, Log, RunFolder, Scalars};
use photos::PhotoFolder;
use sampling::{ModelFolder, Pipeline};
use serde_json::json;
use tch::{Device, Kind};

use crate::outputs::Outputs;
use crate::{Checkpoint, ConfigLayers, Learning, PhotoBatches, Place, Stage, StepReport, Trainer};

/// A run that holds its folder.
#[derive(Debug)]
pub struct Session {
    folder: RunFolder,
    trainer: Trainer,
    batches: PhotoBatches,
    outputs: Outputs,
    checkpoint: Option<Checkpoint>,
    notes: Vec<String>,
}

/// What happens in a run, for whoever shows it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A stage begins, or goes on after `done` steps.
    Stage {
        /// The stage.
        stage: Stage,
        /// Steps done earlier.
        done: u64,
        /// Steps of the stage.
        steps: u64,
    },
    /// A step is done.
    Step {
        /// Its losses.
        report: &'a StepReport,
        /// The most memory used so far in bytes, where the system tells.
        peak_memory: Option<u64>,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All stages are done.
    Finished,
    /// It was asked to stop and has written a checkpoint.
    Stopped,
}

impl Session {
    /// Prepares a run: everything that can be wrong is found out here, before anything slow.
    ///
    /// # Errors
    /// An unusable configuration, model or photo; a folder in use or with another run; a resumed run whose
    /// configuration has changed.
    pub fn open(layers: ConfigLayers, out: &Path, device: Device, resume: bool) -> Result<Self> {
        let own_resolution = !layers.has("augmentation.resolution");
        let mut config = layers.finish()?;
        config.validate()?;
        ensure!(!config.model.as_os_str().is_empty(), "no model is given: name its folder with --model");
        ensure!(!config.concept.as_os_str().is_empty(), "no photos are given: name their folder with --concept");
        let model = ModelFolder::open(&config.model)?;
        let photos = PhotoFolder::open(&config.concept)?;
        let prior = config.prior.as_ref().map(|prior| PhotoFolder::open(&prior.folder)).transpose()?;
        let pipeline = Pipeline::from_folder(model.path(), (Kind::Float, device))?;
        let size = pipeline.default_settings().height;
        if own_resolution {
            config.augmentation.resolution = u32::try_from(size)?;
        }
        let settings = sampling::Settings {
            height: config.augmentation.resolution.into(),
            width: config.augmentation.resolution.into(),
            ..pipeline.default_settings()
        };
        let latents = pipeline.latents_shape(&settings);
        let timesteps = pipeline.scheduler.num_train_timesteps as i64;
        let mut notes: Vec<String> =
            photos.skipped.iter().map(|skipped| format!("{skipped}; it is left out")).collect();
        let hashes: Vec<_> =
            photos.photos.iter().map(|photo| json!({ "file": photo.name(), "sha256": photo.sha256 })).collect();
        let batches = PhotoBatches::new(&config, photos.photos, prior.map(|prior| prior.photos), latents, timesteps);
        let trainer = Trainer::new(config, pipeline)?;
        let count = trainer.subject.category_positions.len();
        if count > 1 {
            notes.push(format!(
                "the category {:?} is {count} tokens for this model; [V] is compared with {}",
                trainer.config.category,
                match trainer.config.regularizer.category {
                    regularizer::Category::Mean => "the mean of their attention maps",
                    regularizer::Category::First => "the first one's attention map",
                }
            ));
        }

        let record = json!({ "config": trainer.config, "photos": hashes });
        let versions = [
            ("attndreambooth", env!("CARGO_PKG_VERSION")),
            ("libtorch", libtorch::LIBTORCH_VERSION),
            ("device", &format!("{device:?}")),
        ];
        let folder = if resume { RunFolder::resume(out)? } else { RunFolder::create(out)? };
        if resume {
            let differences = journal::differences(&folder.saved_config()?.config, &record);
            ensure!(
                differences.is_empty(),
                "the run in {} cannot go on with another configuration: {}; leave that as it was, or start a new run",
                out.display(),
                differences.join("; ")
            );
        } else {
            folder.write_config(&record, &versions)?;
        }
        let checkpoint = if resume { Checkpoint::latest(&out.join(CHECKPOINTS))? } else { None };
        let outputs = Outputs::new(out);
        Ok(Self { folder, trainer, batches, outputs, checkpoint, notes })
    }

    /// What the user should know before the run.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Runs to the end, or until `stop` says so, which is asked after each step.
    ///
    /// # Errors
    /// A loss that is not a number, want of memory or disk; the last checkpoint stays good.
    pub fn run(&mut self, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
        let outcome = self.stages(stop, watch);
        outcome.map_err(explain_memory)
    }

    fn stages(&mut self, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
        let first = Place { stage: Stage::Embedding, step: 0, part: 0 };
        self.outputs.contact_sheet(&self.batches.views(first))?;
        let resumed = self.checkpoint.take();
        let start = resumed.as_ref().map_or(Stage::Embedding, |checkpoint| checkpoint.state.stage);
        let done = resumed.as_ref().map_or(0, |c| self.step_number(c.state.stage, c.state.step));
        let mut record =
            Record { log: Log::open(self.folder.path(), done)?, scalars: Scalars::open(self.folder.path(), done)? };
        for stage in Stage::ALL.into_iter().filter(|stage| *stage >= start) {
            let mut learning = match &resumed {
                Some(checkpoint) if stage == start => self.trainer.resume(checkpoint)?,
                _ => self.trainer.start(stage)?,
            };
            if !self.stage(&mut learning, &mut record, stop, watch)? {
                return Ok(Outcome::Stopped);
            }
            learning.finish()?;
            if stage == Stage::Embedding {
                self.outputs.embedding(&self.trainer)?;
            }
        }
        self.outputs.unet(&self.trainer)?;
        self.outputs.samples(&self.trainer)?;
        self.outputs.curves()?;
        Ok(Outcome::Finished)
    }

    /// Returns whether the stage was finished.
    fn stage(
        &mut self,
        learning: &mut Learning,
        record: &mut Record,
        stop: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool> {
        let stage = learning.stage();
        let steps = self.trainer.config.stage(stage).steps;
        watch(Event::Stage { stage, done: learning.done() as u64, steps: steps as u64 });
        let device = self.trainer.pipeline.placement().1;
        while learning.done() < steps {
            let started = Instant::now();
            let report = learning.step(&self.trainer, &mut self.batches)?;
            let peak_memory = libtorch::peak_memory(device).ok();
            let mut values = vec![
                ("diffusion_loss", report.diffusion_loss),
                ("attention_loss", report.attention_loss),
                ("learning_rate", self.trainer.config.stage(stage).learning_rate),
                ("seconds", started.elapsed().as_secs_f64()),
            ];
            values.extend(peak_memory.map(|bytes| ("peak_memory_bytes", bytes as f64)));
            record.add(&Entry::now(self.step_number(stage, report.step), stage.name(), values))?;
            watch(Event::Step { report: &report, peak_memory });

            let every = self.trainer.config.validation.every;
            if every > 0 && report.step % every == 0 {
                self.outputs.validation(&self.trainer, stage, report.step)?;
            }
            let stopping = stop();
            let due = report.step % self.trainer.config.checkpoint_every == 0 || report.step == steps;
            if due || stopping {
                record.log.sync()?;
                self.save(learning)?;
            }
            if stopping {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a checkpoint and then removes the one before.
    fn save(&self, learning: &Learning) -> Result<()> {
        let parent = self.folder.path().join(CHECKPOINTS);
        let name = format!("{}-{:05}", learning.stage(), learning.done());
        learning.save(&self.trainer, &parent.join(name))?;
        Checkpoint::keep_latest(&parent)
    }

    /// Steps done in the whole run when `step` are done in `stage`.
    fn step_number(&self, stage: Stage, step: usize) -> u64 {
        let earlier = Stage::ALL.into_iter().filter(|earlier| *earlier < stage);
        (earlier.map(|earlier| self.trainer.config.stage(earlier).steps).sum::<usize>() + step) as u64
    }
}

/// What is written down of each step.
struct Record {
    log: Log,
    scalars: Scalars,
}

impl Record {
    fn add(&mut self, entry: &Entry) -> Result<()> {
        self.log.append(entry)?;
        self.scalars.append(entry)
    }
}

/// Where checkpoints stand in the run's folder.
const CHECKPOINTS: &str = "checkpoints";

/// Adds what helps when memory runs out.
fn explain_memory(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<libtorch::Error>() {
        Some(libtorch::Error::OutOfMemory(_)) => error.context(
            "this run needs more memory than there is: start it again with --gradient-checkpointing, --dtype bf16, or a smaller \
             --batch-size with as much more --gradient-accumulation",
        ),
        _ => error,
    }
}
