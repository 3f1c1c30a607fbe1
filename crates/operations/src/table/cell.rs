//! One cell of a table: a method learns a subject, its images are generated and scored.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use evaluation::{
    DinoFeatures, FeatureExtractor, Gallery, GeneratedImage, Reference, evaluate_images, evaluate_photos,
};
use fingerprint::Fingerprints;
use hub::ModelKind;
use model_files::BaseModel;
use options::{DeviceChoice, SchedulerKind};
use photos::PhotoFolder;
use prompts::{PlannedImage, PromptSet};
use requests::{Attend, Compute, Inspect, Keep, NO_RESULTS, Seed, SingleFile, Train, TrainOptions};
use runs::{Entry, GalleryConfig, ModelFingerprint, Scores, Validation, read_log};
use sampling::{Pipeline, Settings};
use serde_json::{Value, json};
use statistics::Bootstrap;
use tables::{Cell, CellRecord, Cost, Protocol, System, TablePlan};
use tch::{Device, Kind};
use trainer::FinishedRun;

use crate::context::Context;
use crate::evaluate::scoring_clip;
use crate::{attend, compute, config, inputs, inspect, models, train};

/// Prompts whose first images are kept for the figure, and shown to the cell's attention.
const FIGURE_PROMPTS: usize = 8;
/// The folder of a cell's run.
pub(super) const RUN: &str = "run";
/// Images that are generated at once.
const BATCH: usize = 4;

/// What all cells of a table have in common.
pub(super) struct Bench<'a> {
    pub(super) plan: &'a TablePlan,
    /// The folder of all cells.
    pub(super) out: PathBuf,
    pub(super) device: DeviceChoice,
    /// How images are generated.
    pub(super) to: (Kind, Device),
    pub(super) model: BaseModel,
    model_sha256: Value,
    judge: PathBuf,
    judge_sha256: ModelFingerprint,
    dino_sha256: Option<ModelFingerprint>,
    extractor: OnceCell<FeatureExtractor>,
    /// Of each subject, as soon as one of its cells is looked at.
    photos: Vec<OnceCell<Photos>>,
}

/// The photos of a subject.
#[derive(Debug)]
struct Photos {
    paths: Vec<PathBuf>,
    sha256: Vec<String>,
}

/// What decides the numbers of all cells alike.
pub(super) fn of_table(plan: &TablePlan) -> Result<Value> {
    let prompts = plan.plan(0)?.prompts;
    Ok(json!({
        "prompts": prompts.prompts,
        "images": plan.images(),
        "sampler": plan.sampler(),
        "dtype": plan.dtype,
        "protocol": plan.protocol,
    }))
}

impl<'a> Bench<'a> {
    /// Finds everything that cells need.
    pub(super) fn open(plan: &'a TablePlan, out: &Path, device: DeviceChoice, context: &Context<'_>) -> Result<Self> {
        let to = compute::resolve(Compute { device, dtype: plan.dtype })?;
        let model = models::open(&plan.model, &SingleFile::default(), context).context("the plan's model")?;
        let model_sha256 = json!(ModelFingerprint::of(model.path(), model.files()?)?.sha256);
        let named = plan.judge.as_deref().map(|judge| models::locate(judge, ModelKind::Clip)).transpose()?;
        let judge = scoring_clip(named.as_deref(), model.path()).context("the plan's judge")?;
        let judge_sha256 = ModelFingerprint::of_weights(&judge)?;
        let dino_sha256 =
            plan.dino.as_deref().map(ModelFingerprint::of_weights).transpose().context("the plan's dino")?;
        let (out, photos) = (out.to_owned(), plan.subjects.iter().map(|_| OnceCell::new()).collect());
        let extractor = OnceCell::new();
        Ok(Self { plan, out, device, to, model, model_sha256, judge, judge_sha256, dino_sha256, extractor, photos })
    }

    pub(super) fn folder(&self, cell: &Cell<'_>) -> PathBuf {
        cell.folder(&self.out)
    }

    /// The cell's record, if it is done.
    pub(super) fn done(&self, cell: &Cell<'_>) -> Result<Option<CellRecord>> {
        let folder = self.folder(cell);
        self.read(cell, &folder, &folder)
    }

    /// The same of a record in any folder, which comes from `shown`.
    pub(super) fn read(&self, cell: &Cell<'_>, folder: &Path, shown: &Path) -> Result<Option<CellRecord>> {
        let record = CellRecord::read(folder, cell)?;
        if let Some(record) = &record {
            record.check(&self.made_by(cell)?, &self.judge_sha256, shown)?;
        }
        Ok(record)
    }

    /// What a method's run is trained with.
    pub(super) fn options(&self, cell: &Cell<'_>) -> Result<TrainOptions> {
        let System::Method(method) = cell.system else { anyhow::bail!("{} trains nothing", cell.row()) };
        let subject = &self.plan.subjects[cell.subject];
        Ok(TrainOptions {
            model: Some(self.model.path().to_owned()),
            concept: Some(subject.photos.clone()),
            category: Some(subject.category.clone()),
            seed: Some(Seed::from(cell.seed)),
            results: Some(NO_RESULTS.to_owned()),
            ..(*self.plan.methods[method].train).clone()
        })
    }

    /// Everything that decides the cell's numbers, by contents and not by places.
    fn made_by(&self, cell: &Cell<'_>) -> Result<Value> {
        let run = match cell.system {
            System::Method(_) => config::layers(&self.options(cell)?, None)?.finish()?.identity()?,
            System::Real | System::Base => Value::Null,
        };
        let category = &self.plan.subjects[cell.subject].category;
        let mut made_by = json!({
            "table": of_table(self.plan)?,
            "run": run,
            "model": self.model_sha256,
            "photos": self.photos(cell)?.sha256,
            "category": category,
            "dino": self.dino_sha256.as_ref().map(|dino| &dino.sha256),
        });
        if let (System::Real, Some(pictures)) = (cell.system, self.pictures(cell)?) {
            let fingerprints = Fingerprints::of_user();
            let hashes = pictures.iter().map(|picture| fingerprints.of(&picture.path)).collect::<Result<Vec<_>>>()?;
            made_by["pictures"] = json!(hashes);
        }
        Ok(made_by)
    }

    fn photos(&self, cell: &Cell<'_>) -> Result<&Photos> {
        let read = &self.photos[cell.subject];
        if let Some(photos) = read.get() {
            return Ok(photos);
        }
        let subject = &self.plan.subjects[cell.subject];
        let photos = inputs::photos(&subject.photos, None)?;
        let found = PhotoFolder::open(&photos).with_context(|| format!("the subject {}", subject.name))?;
        let (paths, sha256) = found.photos.into_iter().map(|photo| (photo.path, photo.sha256)).unzip();
        Ok(read.get_or_init(|| Photos { paths, sha256 }))
    }

    /// Computes the cell, as far as that has not been done.
    pub(super) fn compute(&self, cell: &Cell<'_>, context: &Context<'_>) -> Result<CellRecord> {
        let folder = self.folder(cell);
        let extractor = self.extractor(context)?;
        let (scores, generate_seconds, cost, embedding_cosine) = match cell.system {
            System::Real => (self.real(cell, extractor)?, 0.0, None, None),
            System::Base => {
                let open = || Pipeline::open(&self.model, self.to);
                let validation = models::validation(self.model.path())?;
                let category = self.plan.subjects[cell.subject].category.clone();
                let (seconds, scores) = self.images(cell, (&validation, &category), &open, extractor, context)?;
                (scores, seconds, None, None)
            }
            System::Method(_) => {
                let run = folder.join(RUN);
                let cost = self.learn(cell, &run, context)?;
                let finished = FinishedRun::open(&run)?;
                if let Some(stopped_by) = finished.stop_clip() {
                    ensure!(
                        !self.judge_sha256.shares_file(stopped_by),
                        "the judge is the CLIP by which {} is stopped (stop_clip), and whose scores say nothing any more",
                        cell.row()
                    );
                }
                let subject = format!("[V] {}", finished.config.category);
                let open = || finished.pipeline(self.to);
                let of = (&finished.config.validation, subject.as_str());
                let (seconds, scores) = self.images(cell, of, &open, extractor, context)?;
                let cosine = self.figures(&run, &finished, cell, context)?;
                (scores, seconds, Some(cost), cosine)
            }
        };
        let record = CellRecord {
            row: cell.row().to_owned(),
            subject: cell.subject().to_owned(),
            seed: cell.seed,
            made_by: self.made_by(cell)?,
            judge: self.judge_sha256.clone(),
            cost,
            generate_seconds,
            embedding_cosine,
            versions: models::versions(),
            scores,
        };
        record.write(&folder)?;
        Ok(record)
    }

    /// What scores, read once for all cells.
    fn extractor(&self, context: &Context<'_>) -> Result<&FeatureExtractor> {
        if let Some(extractor) = self.extractor.get() {
            return Ok(extractor);
        }
        let extractor =
            FeatureExtractor::open(&self.judge, self.to.1)?.with_packed_bytes(compute::packed_bytes_of_clip());
        context.notes(extractor.notes());
        let extractor = match self.plan.protocol {
            Protocol::TextualInversion => extractor.as_textual_inversion(),
            _ => extractor,
        };
        let extractor = match &self.plan.dino {
            Some(folder) => extractor.with_dino(DinoFeatures::open(folder, self.to.1).context("the plan's dino")?),
            None => extractor,
        };
        Ok(self.extractor.get_or_init(|| extractor))
    }

    /// Trains, or goes on with what was interrupted.
    fn learn(&self, cell: &Cell<'_>, run: &Path, context: &Context<'_>) -> Result<Cost> {
        let finished = FinishedRun::open(run).is_ok_and(|finished| finished.is_complete());
        if !finished {
            // The process may have been larger before.
            if let Err(error) = libtorch::reset_peak_memory(self.to.1) {
                context.note(format!("the memory of training is that of the whole process: {error}"));
            }
            let resume = run.join("config.json").exists();
            let request = Train { options: self.options(cell)?, resume, device: self.device, ..Train::default() };
            train::learn(&request, run, context)?;
        }
        let peak_memory = libtorch::peak_memory(self.to.1)?;
        let log = read_log(run)?;
        let seconds = |entry: &Entry| entry.values.get("seconds").copied().unwrap_or(0.0);
        let (trained_parameters, learned_bytes) = FinishedRun::open(run)?.size()?;
        let (train_seconds, steps) = (log.iter().map(seconds).sum(), log.len() as u64);
        Ok(Cost { train_seconds, steps, peak_memory, trained_parameters, learned_bytes })
    }

    /// Generates what is missing of a cell's images and scores them; also the seconds that it took.
    fn images(
        &self,
        cell: &Cell<'_>,
        (validation, subject): (&Validation, &str),
        open: &dyn Fn() -> Result<Pipeline>,
        extractor: &FeatureExtractor,
        context: &Context<'_>,
    ) -> Result<(f64, Scores)> {
        let folder = self.folder(cell);
        let plan = self.plan.plan(cell.seed)?;
        let Validation { steps, guidance_scale, scheduler, eta, .. } = *validation;
        let [height, width] = [self.model.image_size()?; 2];
        let own = Settings { steps, guidance_scale, height, width, scheduler, eta };
        // A method that samples by a scheduler of its own keeps it.
        let sampler = self.plan.sampler();
        let settings =
            compute::settings(&requests::Sampler { scheduler: scheduler.or(sampler.scheduler), ..sampler }, &own);
        let scheduler = settings.scheduler.unwrap_or(SchedulerKind::DpmSolverPlusPlus);
        let settings = Settings { scheduler: Some(scheduler), ..settings };
        let config = GalleryConfig {
            model: format!("{} with {subject}", cell.row()),
            details: self.made_by(cell)?,
            settings,
            scheduler,
            dtype: self.plan.dtype.to_string(),
        };
        let mut gallery = Gallery::open(&folder.join("images"), plan.images(subject), config)?;
        let taken = folder.join("seconds.json");
        if gallery.missing() > 0 {
            let mut pipeline = open()?;
            pipeline.set_packed_bytes(compute::packed_bytes(&pipeline));
            context.notes(pipeline.notes());
            let start = Instant::now();
            let (all, missing) = (gallery.images().len(), gallery.missing());
            let mut progress = context.progress(format!("generating {}, steps", cell.row()));
            gallery.generate(&pipeline, BATCH, &mut |drawing| {
                let total = (drawing.batches * drawing.step.total) as u64;
                progress.step(total, format!("batch {}/{}", drawing.batch, drawing.batches));
            })?;
            // Of those that an interrupted call has generated, the time is taken to be the same.
            let seconds = start.elapsed().as_secs_f64() * all as f64 / missing as f64;
            atomic::write(&taken, serde_json::to_vec(&seconds)?)?;
        }
        let seconds: f64 = if taken.exists() { json::read(&taken, "a number of seconds")? } else { 0.0 };
        let generated = gallery.images();
        let photos = &self.photos(cell)?.paths;
        let category = &self.plan.subjects[cell.subject].category;
        let reference = Reference { photos, category, prompts: &plan.prompts, masks: None };
        let mut progress = context.progress(format!("scoring {}, images", cell.row()));
        let total = generated.len() as u64 * if extractor.dino().is_some() { 2 } else { 1 };
        let scores = evaluate_images(extractor, &generated, &reference, &Bootstrap::default(), &mut |seen| {
            progress.reach(seen as u64, total, "");
        })?;
        keep_some(&folder, &generated, &plan.prompts)?;
        Ok((seconds, scores))
    }

    /// Real pictures in the place of generated ones: as the prompts ask for them where there are such, else the photos.
    fn real(&self, cell: &Cell<'_>, extractor: &FeatureExtractor) -> Result<Scores> {
        let photos = &self.photos(cell)?.paths;
        let category = &self.plan.subjects[cell.subject].category;
        let Some(pictures) = self.pictures(cell)? else {
            let captions = vec![format!("a photo of a {category}"); photos.len()];
            return evaluate_photos(extractor, photos, &captions, &Bootstrap::default());
        };
        let prompts = self.plan.plan(cell.seed)?.prompts;
        let reference = Reference { photos, category, prompts: &prompts, masks: None };
        evaluate_images(extractor, &pictures, &reference, &Bootstrap::default(), &mut |_| {})
    }

    /// Pictures of the subject as the prompts ask for it, if the plan has some.
    fn pictures(&self, cell: &Cell<'_>) -> Result<Option<Vec<GeneratedImage>>> {
        let Some(folder) = &self.plan.subjects[cell.subject].real else { return Ok(None) };
        let folder = inputs::photos(folder, None)?;
        let picture = |image: &PlannedImage| {
            let path = folder.join(image.file_name());
            ensure!(path.exists(), "{} is not there: each image of the plan has a real picture", path.display());
            Ok(GeneratedImage { path, prompt: image.prompt, seed: 0 })
        };
        Ok(Some(self.plan.plan(cell.seed)?.images("").iter().map(picture).collect::<Result<_>>()?))
    }

    /// What needs the run's weights: the attention to [V] and the class noun, and [V] alone. Returns the cosine between the embedding
    /// and its start.
    fn figures(
        &self,
        run: &Path,
        finished: &FinishedRun,
        cell: &Cell<'_>,
        context: &Context<'_>,
    ) -> Result<Option<f64>> {
        let folder = self.folder(cell).join("figures");
        let computing = Compute { device: self.device, dtype: self.plan.dtype };
        let prompt = format!("a photo of a [V] {}", finished.config.category);
        let seed = Seed::from(cell.seed);
        let attention = folder.join("attention");
        if !attention.join("attend.json").exists() {
            let request = Attend {
                run: Some(run.to_owned()),
                out: Some(attention),
                seed,
                compute: computing,
                sampler: self.plan.sampler(),
                ..Attend::new(prompt)
            };
            attend::run(&request, context)?;
        }
        if finished.own_embedding().is_err() {
            return Ok(None);
        }
        let request = Inspect {
            out: Some(folder.join("embedding")),
            seed,
            images: 2,
            compute: computing,
            sampler: self.plan.sampler(),
            ..Inspect::new(run)
        };
        let inspected = inspect::run(&request, context)?;
        let cosines: Vec<f64> = inspected.record.vectors.iter().map(|vector| vector.cosine).collect();
        Ok((!cosines.is_empty()).then(|| cosines.iter().sum::<f64>() / cosines.len() as f64))
    }

    /// Removes what is not to be kept of a cell that is done.
    pub(super) fn tidy(&self, cell: &Cell<'_>, keep: Keep) -> Result<()> {
        let folder = self.folder(cell);
        let leftover: &[&str] = match keep {
            Keep::Everything => &[],
            Keep::Images => &[RUN],
            Keep::Scores => &[RUN, "images", "seconds.json"],
        };
        for name in leftover {
            let path = folder.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Keeps the first images of prompts that are spread over the set.
fn keep_some(folder: &Path, generated: &[GeneratedImage], set: &PromptSet) -> Result<()> {
    let figures = folder.join("figures");
    fs::create_dir_all(&figures).with_context(|| format!("cannot make {}", figures.display()))?;
    let count = set.prompts.len().min(FIGURE_PROMPTS);
    for prompt in (0..count).map(|i| i * set.prompts.len() / count) {
        let Some(first) = generated.iter().find(|image| image.prompt == prompt) else { continue };
        let to = figures.join(format!("{prompt:03}.png"));
        let bytes = fs::read(&first.path).with_context(|| format!("cannot read {}", first.path.display()))?;
        atomic::write(&to, bytes)?;
    }
    Ok(())
}
