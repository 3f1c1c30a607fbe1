//! `evaluate`: images of a learned subject, scored by CLIP.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use attributes::Reader;
use distributed::Group;
use evaluation::{
    DinoFeatures, FeatureExtractor, Gallery, GeneratedImage, Masks, Reference, clip_name, evaluate_images, find_clip,
};
use hub::{Hub, ModelKind};
use model_files::BaseModel;
use options::SchedulerKind;
use photos::PhotoFolder;
use prompts::{Plan, PromptSet};
use requests::{Evaluate, MaskBackground, NO_RESULTS};
use runs::{Evaluation as Record, GalleryConfig, ModelFingerprint, ResultsFolder, Validation, Variant};
use sampling::{Pipeline, Settings};
use serde::Serialize;
use serde_json::json;
use statistics::Bootstrap;
use trainer::FinishedRun;

use crate::context::{Context, Event};
use crate::{compute, inputs, models};

/// A scored evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluated {
    /// The file of the scores, beside the images' folders.
    pub scores: PathBuf,
    /// What it says.
    pub record: Record,
}

/// A folder of images and the model that they are of.
struct Candidate {
    name: &'static str,
    gallery: Gallery,
    config: GalleryConfig,
}

/// An evaluation whose request has been checked.
pub(crate) struct Evaluation<'a> {
    request: &'a Evaluate,
    plan: Plan,
    run: FinishedRun,
    model: BaseModel,
    photos: Vec<PathBuf>,
    out: PathBuf,
    results: ResultsFolder,
    candidates: Vec<Candidate>,
}

/// None in a process that has generated its share for rank 0, which scores.
pub(crate) fn run(request: &Evaluate, context: &Context<'_>) -> Result<Option<Evaluated>> {
    context.seed(request.seed);
    let request = &Evaluate {
        compute: requests::Compute { device: context.device(request.compute.device), ..request.compute },
        ..request.clone()
    };
    let processes = context.connect()?;
    processes.telling(|| run_among(request, &processes, context))
}

fn run_among(request: &Evaluate, processes: &Group, context: &Context<'_>) -> Result<Option<Evaluated>> {
    let mut evaluation = Evaluation::prepare(request, context)?;
    // Rank 0 alone scores.
    let extractor = processes.leads().then(|| evaluation.extractor(context)).transpose()?;
    evaluation.generate_among(processes, context)?;
    processes.leave()?;
    let Some(extractor) = extractor else { return Ok(None) };
    let (scores, record) = evaluation.score(&extractor, context)?;
    Ok(Some(Evaluated { scores, record }))
}

impl<'a> Evaluation<'a> {
    /// Checks everything but CLIP, and looks what is generated already.
    pub(crate) fn prepare(request: &'a Evaluate, context: &Context<'_>) -> Result<Self> {
        let folder = request.run.as_deref().context("there is no run to evaluate: name one with --run")?;
        let run = models::finished(folder, request.model.as_deref())?;
        let prompts = request.prompts.clone().unwrap_or_else(|| match run.config.validation.results.as_str() {
            NO_RESULTS => Validation::default().results,
            results => results.to_owned(),
        });
        let plan =
            Plan { prompts: PromptSet::load(&prompts)?, images: request.images as usize, seed: request.seed.get() };
        plan.check()?;
        let model = run.base_model()?;
        let photos = match &request.concept {
            Some(concept) => {
                let found = PhotoFolder::open(&inputs::photos(concept, Some(context))?)
                    .context("the photos to compare with (--concept)")?;
                context.notes(found.notes);
                found.photos
            }
            None => run.photos().context("the photos to compare with")?,
        };
        let photos: Vec<PathBuf> = photos.into_iter().map(|photo| photo.path).collect();
        let out = request.out.clone().unwrap_or_else(|| folder.join("evaluation").join(&plan.prompts.name));
        let results = ResultsFolder::check(&out, "evaluate", &["scores.json", "subject/recipe.json"])?;
        let candidates = candidates(request, &plan, &run, &model, &out, context)?;
        Ok(Self { request, plan, run, model, photos, out, results, candidates })
    }

    /// CLIP; notes what it cannot read of the prompts.
    pub(crate) fn extractor(&self, context: &Context<'_>) -> Result<FeatureExtractor> {
        let named = self.request.clip.as_deref().map(|clip| models::locate(clip, ModelKind::Clip)).transpose()?;
        let folder = scoring_clip(named.as_deref(), self.model.path())?;
        if let Some(stopped_by) = self.run.stop_clip() {
            ensure!(
                !ModelFingerprint::of_weights(&folder)?.shares_file(stopped_by),
                "the CLIP in {} is the one by which the run was stopped (--stop-clip), and whose scores say nothing any more: name \
                 another with --clip",
                folder.display()
            );
        }
        let device = compute::resolve(self.request.compute)?.1;
        let extractor = FeatureExtractor::open(&folder, device)?.with_packed_bytes(compute::packed_bytes_of_clip());
        context.notes(extractor.notes());
        let extractor = match &self.request.dino {
            Some(folder) => extractor.with_dino(DinoFeatures::open(folder, device).context("--dino")?),
            None => extractor,
        };
        for prompt in &self.plan.prompts.prompts {
            context.notes(extractor.truncation(&prompt.with(&self.run.config.category))?);
        }
        Ok(extractor)
    }

    /// Generates what is missing.
    pub(crate) fn generate(&mut self, context: &Context<'_>) -> Result<()> {
        self.generate_among(&Group::alone(), context)
    }

    fn generate_among(&mut self, processes: &Group, context: &Context<'_>) -> Result<()> {
        // All have looked at what is there.
        processes.wait()?;
        let to = compute::resolve(self.request.compute)?;
        for Candidate { name, gallery, .. } in &mut self.candidates {
            context.check()?;
            // The model is loaded only where it is needed.
            if gallery.missing() == 0 {
                continue;
            }
            let mut pipeline = match *name {
                "base" => Pipeline::open(&self.model, to)?,
                _ => self.run.pipeline(to)?,
            };
            pipeline.set_packed_bytes(compute::packed_bytes(&pipeline));
            context.notes(pipeline.notes());
            context.notes(gallery.prompt_notes(&pipeline)?);
            let mut progress = context.progress(format!("generating {name}, steps"));
            gallery.generate_among(
                processes,
                &pipeline,
                self.request.size.batch_size.max(1) as usize,
                &mut |drawing| {
                    let total = (drawing.batches * drawing.step.total) as u64;
                    progress.step(total, format!("batch {}/{}", drawing.batch, drawing.batches));
                },
            )?;
            context.notes(gallery.note());
        }
        // Last, so that nothing is made by what cannot be generated; till then the folder is known by its images.
        if processes.leads() { self.results.create() } else { Ok(()) }
    }

    /// Each candidate's name and its images, in the order of the prompts.
    pub(crate) fn generated(&self) -> Vec<(&'static str, Vec<GeneratedImage>)> {
        self.candidates.iter().map(|candidate| (candidate.name, candidate.gallery.images())).collect()
    }

    /// The prompts.
    pub(crate) fn prompts(&self) -> &PromptSet {
        &self.plan.prompts
    }

    /// The class noun.
    pub(crate) fn category(&self) -> &str {
        &self.run.config.category
    }

    /// Scores the images, in scores.json, whose path is returned too.
    pub(crate) fn score(&self, extractor: &FeatureExtractor, context: &Context<'_>) -> Result<(PathBuf, Record)> {
        let Self { request, plan, run, photos, .. } = self;
        let mut variants = Vec::new();
        for Candidate { name, gallery, config } in &self.candidates {
            context.check()?;
            let masks = request.masks.as_ref().map(|masks| Masks {
                photos: masks.join("photos"),
                images: masks.join(name),
                background: match request.mask_background {
                    MaskBackground::Grey => [128; 3],
                    MaskBackground::Black => [0; 3],
                },
            });
            let generated = gallery.images();
            let passes = 1 + usize::from(masks.is_some()) + usize::from(extractor.dino().is_some());
            let total = generated.len() * passes;
            let category = run.config.category.as_str();
            let reference = Reference { photos, category, prompts: &plan.prompts, masks };
            let mut progress = context.progress(format!("scoring {name}, images"));
            progress.reach(0, total as u64, "");
            let scores = evaluate_images(extractor, &generated, &reference, &Bootstrap::default(), &mut |seen| {
                progress.reach(seen as u64, total as u64, "");
            })?;
            let config = config.clone();
            variants.push(Variant { name: (*name).to_owned(), folder: PathBuf::from(name), config, scores });
        }
        let record = Record {
            clip: extractor.name().clone(),
            dino: request.dino.as_deref().map(clip_name),
            reader: extractor.reader().and_then(Reader::agreement),
            prompt_set: plan.prompts.name.clone(),
            images_per_prompt: plan.images,
            seed: plan.seed,
            category: run.config.category.clone(),
            photos: photos.clone(),
            bootstrap: Bootstrap::default(),
            versions: models::versions(),
            variants,
        };
        let path = self.out.join("scores.json");
        record.write(&self.out)?;
        context.tell(Event::Scores { path: path.clone(), record: Box::new(record.clone()) });
        Ok((path, record))
    }
}

/// The folder of the CLIP that scores images of a base model, if none is named.
///
/// # Errors
/// When there is none.
pub(crate) fn scoring_clip(named: Option<&Path>, model: &Path) -> Result<PathBuf> {
    let paper = || Ok(Hub::from_env()?.resolve("clip-vit-b32", ModelKind::Clip)?.path);
    find_clip(named, model).or_else(|error| paper().map_err(|_: anyhow::Error| error))
}

/// The learned subject, and the base model if it is asked for.
fn candidates(
    request: &Evaluate,
    plan: &Plan,
    run: &FinishedRun,
    model: &BaseModel,
    out: &Path,
    context: &Context<'_>,
) -> Result<Vec<Candidate>> {
    let [height, width] = request.size.or(model.image_size()?);
    let Validation { steps, guidance_scale, scheduler, eta, .. } = run.config.validation;
    let own = Settings { steps, guidance_scale, height, width, scheduler, eta };
    let settings = compute::settings(&request.sampler, &own);
    let scheduler = settings.scheduler.unwrap_or(SchedulerKind::DpmSolverPlusPlus);
    let settings = Settings { scheduler: Some(scheduler), ..settings };
    let base = run.base_name().to_owned();
    let category = &run.config.category;
    let subject = format!("[V] {category}");
    // Names that outlast a move of the run's folder.
    let learned = ("subject", format!("{base} with {subject}"), json!({ "run": run.identity()? }), subject.as_str());
    let unchanged = ("base", base.clone(), json!({ "base": base }), category.as_str());
    let mut candidates = Vec::new();
    for (name, model, details, subject) in [Some(learned), request.base.then_some(unchanged)].into_iter().flatten() {
        let dtype = request.compute.dtype.to_string();
        let config = GalleryConfig { model, details, settings: settings.clone(), scheduler, dtype };
        let gallery = Gallery::open(&out.join(name), plan.images(subject), config.clone())?;
        context
            .notes(gallery.incomplete().iter().map(|file| format!("{} is incomplete; regenerating", file.display())));
        candidates.push(Candidate { name, gallery, config });
    }
    Ok(candidates)
}
