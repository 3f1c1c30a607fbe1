//! `evaluate`: pictures of a learned subject, and CLIP's opinion of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use evaluation::{Drawn, FeatureExtractor, Gallery, Masks, Reference, evaluate_images, find_clip};
use libtorch::DeviceChoice;
use model_files::BaseModel;
use options::Dtype;
use photos::PhotoFolder;
use prompts::{Plan, PromptSet};
use runs::{Bootstrap, Evaluation, GalleryConfig, ResultsFolder, Scores, Validation, Variant};
use sampling::{Pipeline, Settings};
use scheduler::SchedulerKind;
use serde_json::json;
use trainer::FinishedRun;

use crate::device::ComputeArgs;
use crate::learned;
use crate::number;
use crate::progress::Progress;
use crate::sampler::{SamplerArgs, SizeArgs};
use crate::seed::Seed;
use crate::train::NO_RESULTS;

/// Draw a learned subject in many prompts and score the pictures with CLIP.
///
/// CLIP-I says how much the pictures are of the subject, CLIP-T how much they are what the prompts say. Pictures that are
/// there already are not drawn again, so an interrupted evaluation goes on by the same command.
#[derive(Args, Debug)]
pub(crate) struct Evaluate {
    /// The folder of a finished training run
    #[arg(long)]
    pub(crate) run: PathBuf,
    /// Where the run's base model is now, if it has been moved
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    // Not a doc comment: to rustdoc, the names would be links.
    #[arg(long, help = prompts_help())]
    pub(crate) prompts: Option<String>,
    /// Pictures of each prompt; 32 in the paper
    #[arg(long, default_value_t = 4, value_parser = number::within(number::IMAGES, number::IMAGES_REASON))]
    pub(crate) images: u32,
    /// Also draw and score the base model, from the same noise, with the category alone for the subject
    #[arg(long)]
    pub(crate) base: bool,
    /// The folder of the CLIP that judges; if not given, clip/ in the base model's folder, or models/clip-vit-b32
    #[arg(long)]
    pub(crate) clip: Option<PathBuf>,
    /// The folder to write to, new, empty or of a call before; if not given, evaluation/NAME OF THE PROMPTS in the run's
    /// folder
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// The folder with photos of the subject, or a single photo; the run's own if not given
    #[arg(long)]
    pub(crate) concept: Option<PathBuf>,
    /// A folder with masks, white where the subject is: photos/, subject/ and, with --base, base/ with a mask for each
    /// picture under its name; adds CLIP-I with everything else painted over
    #[arg(long)]
    pub(crate) masks: Option<PathBuf>,
    /// What to paint over it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mask_background: Background,
    /// The seed that each image's is derived from; -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    pub(crate) seed: Seed,
    #[command(flatten)]
    pub(crate) sampler: SamplerArgs,
    #[command(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default)]
pub(crate) enum Background {
    #[default]
    Grey,
    Black,
}

fn prompts_help() -> String {
    format!(
        "A set of prompts ({}), or a file: JSON, or a prompt on each line with {{}} for the subject; those of the run's \
         results if not given",
        PromptSet::names().join(", ")
    )
}

/// A folder of pictures and the model that they are of.
struct Candidate {
    name: &'static str,
    gallery: Gallery,
    config: GalleryConfig,
}

/// An evaluation whose arguments have been checked.
pub(crate) struct Prepared {
    evaluate: Evaluate,
    plan: Plan,
    run: FinishedRun,
    model: BaseModel,
    photos: Vec<PathBuf>,
    out: PathBuf,
    results: ResultsFolder,
    candidates: Vec<Candidate>,
}

impl Evaluate {
    /// What the command does with its own defaults.
    pub(crate) fn new(run: &Path, prompts: &str, device: DeviceChoice) -> Self {
        Self {
            run: run.to_owned(),
            model: None,
            prompts: Some(prompts.to_owned()),
            images: 4,
            base: false,
            clip: None,
            out: None,
            concept: None,
            masks: None,
            mask_background: Background::default(),
            seed: Seed::default(),
            sampler: SamplerArgs::default(),
            size: SizeArgs::default(),
            compute: ComputeArgs { device, dtype: Dtype::default() },
        }
    }

    pub(crate) fn execute(self) -> Result<()> {
        self.seed.announce();
        // What can be wrong is found out before anything slow or lasting is done.
        let mut prepared = self.prepare()?;
        let extractor = prepared.extractor()?;
        prepared.draw()?;
        prepared.judge(&extractor)
    }

    /// Checks everything but CLIP, and looks what is drawn already.
    pub(crate) fn prepare(self) -> Result<Prepared> {
        let run = learned::open(&self.run, self.model.as_deref())?;
        let prompts = self.prompts.clone().unwrap_or_else(|| match run.config.validation.results.as_str() {
            NO_RESULTS => Validation::default().results,
            results => results.to_owned(),
        });
        let plan = Plan { prompts: PromptSet::load(&prompts)?, images: self.images as usize, seed: self.seed.get() };
        plan.check()?;
        let model = run.base_model()?;
        let photos = match &self.concept {
            Some(concept) => {
                let found = PhotoFolder::open(concept).context("the photos to compare with (--concept)")?;
                found.notes.iter().for_each(|note| terminal::note!("{note}"));
                found.photos
            }
            None => run.photos().context("the photos to compare with")?,
        };
        let photos: Vec<PathBuf> = photos.into_iter().map(|photo| photo.path).collect();
        let out = self.out.clone().unwrap_or_else(|| self.run.join("evaluation").join(&plan.prompts.name));
        let results = ResultsFolder::check(&out, "evaluate", &["scores.json", "subject/recipe.json"])?;
        let candidates = self.candidates(&plan, &run, &model, &out)?;
        Ok(Prepared { evaluate: self, plan, run, model, photos, out, results, candidates })
    }

    /// The learned subject, and the base model if it is asked for.
    fn candidates(&self, plan: &Plan, run: &FinishedRun, model: &BaseModel, out: &Path) -> Result<Vec<Candidate>> {
        let scheduler = self.sampler.kind()?.unwrap_or(SchedulerKind::DpmSolverPlusPlus);
        let [height, width] = self.size.or(model.image_size()?);
        let Validation { steps, guidance_scale, .. } = run.config.validation;
        let own = Settings { steps, guidance_scale, height, width, scheduler: None };
        let settings = Settings { scheduler: Some(scheduler), ..self.sampler.settings(&own)? };
        let base = run.base_name();
        let category = &run.config.category;
        let subject = format!("[V] {category}");
        // Names that outlast a move of the run's folder.
        let learned =
            ("subject", format!("{base} with {subject}"), json!({ "run": run.identity()? }), subject.as_str());
        let plain = ("base", base.clone(), json!({ "base": base }), category.as_str());
        let mut candidates = Vec::new();
        for (name, model, details, subject) in [Some(learned), self.base.then_some(plain)].into_iter().flatten() {
            let dtype = self.compute.dtype.to_string();
            let config = GalleryConfig { model, details, settings: settings.clone(), scheduler, dtype };
            let gallery = Gallery::open(&out.join(name), plan.images(subject), config.clone())?;
            for damaged in gallery.damaged() {
                terminal::note!("{} was written by half and is drawn again", damaged.display());
            }
            candidates.push(Candidate { name, gallery, config });
        }
        Ok(candidates)
    }
}

impl Prepared {
    /// CLIP, which says what it cannot read of the prompts.
    pub(crate) fn extractor(&self) -> Result<FeatureExtractor> {
        let folder = find_clip(self.evaluate.clip.as_deref(), self.model.path())?;
        let extractor = FeatureExtractor::open(&folder, self.evaluate.compute.resolve()?.1)?;
        extractor.notes().iter().for_each(|note| terminal::note!("{note}"));
        for prompt in &self.plan.prompts.prompts {
            if let Some(truncation) = extractor.truncation(&prompt.with(&self.run.config.category))? {
                terminal::note!("{truncation}");
            }
        }
        Ok(extractor)
    }

    /// Draws what is missing.
    pub(crate) fn draw(&mut self) -> Result<()> {
        let to = self.evaluate.compute.resolve()?;
        for Candidate { name, gallery, .. } in &mut self.candidates {
            let load = || match *name {
                "base" => Pipeline::open(&self.model, to),
                _ => self.run.pipeline(to),
            };
            draw(gallery, name, self.evaluate.size.batch(), load)?;
        }
        // Last, so that nothing is made by what cannot be drawn; till then the folder is known by its recipe.
        self.results.create()
    }

    /// Each candidate's name and its pictures, in the order of the prompts.
    pub(crate) fn drawn(&self) -> Vec<(&'static str, Vec<Drawn>)> {
        self.candidates.iter().map(|candidate| (candidate.name, candidate.gallery.drawn())).collect()
    }

    /// The prompts.
    pub(crate) fn prompts(&self) -> &PromptSet {
        &self.plan.prompts
    }

    /// The word for what the subject is.
    pub(crate) fn category(&self) -> &str {
        &self.run.config.category
    }

    /// Scores the pictures, in scores.json and as a table.
    pub(crate) fn judge(&self, extractor: &FeatureExtractor) -> Result<()> {
        let Self { evaluate, plan, run, photos, .. } = self;
        let mut variants = Vec::new();
        for Candidate { name, gallery, config } in &self.candidates {
            let masks = evaluate.masks.as_ref().map(|masks| Masks {
                photos: masks.join("photos"),
                pictures: masks.join(name),
                background: evaluate.mask_background.colour(),
            });
            let category = run.config.category.as_str();
            let reference = Reference { photos, category, prompts: &plan.prompts, masks };
            let scores = judge(extractor, gallery, name, &reference)?;
            variants.push(Variant {
                name: (*name).to_owned(),
                folder: PathBuf::from(name),
                config: config.clone(),
                scores,
            });
        }
        let record = Evaluation {
            clip: extractor.name().clone(),
            prompt_set: plan.prompts.name.clone(),
            images_per_prompt: plan.images,
            seed: plan.seed,
            category: run.config.category.clone(),
            photos: photos.clone(),
            bootstrap: Bootstrap::default(),
            versions: [
                ("attndreambooth".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("libtorch".to_owned(), libtorch::LIBTORCH_VERSION.to_owned()),
            ]
            .into(),
            variants,
        };
        record.write(&self.out)?;
        terminal::output!("{}", evaluation::table(&record));
        terminal::say!("the pictures and scores.json are in {}", self.out.display());
        Ok(())
    }
}

/// Draws what is missing; the model is loaded only then.
fn draw(gallery: &mut Gallery, name: &str, batch_size: usize, load: impl FnOnce() -> Result<Pipeline>) -> Result<()> {
    if gallery.missing() == 0 {
        return Ok(());
    }
    let pipeline = load()?;
    pipeline.notes().iter().for_each(|note| terminal::note!("{note}"));
    gallery.prompt_notes(&pipeline)?.iter().for_each(|note| terminal::note!("{note}"));
    let mut progress: Option<Progress> = None;
    gallery.draw(&pipeline, batch_size, &mut |drawing| {
        let total = drawing.batches * drawing.step.total;
        let progress = progress.get_or_insert_with(|| Progress::new(&format!("drawing {name}, steps"), total as u64));
        progress.step(&format!("batch {}/{}", drawing.batch, drawing.batches));
    })?;
    if let Some(note) = gallery.note() {
        terminal::note!("{note}");
    }
    Ok(())
}

fn judge(extractor: &FeatureExtractor, gallery: &Gallery, name: &str, reference: &Reference<'_>) -> Result<Scores> {
    let drawn = gallery.drawn();
    let passes = if reference.masks.is_some() { 2 } else { 1 };
    let mut progress = Progress::new(&format!("judging {name}, pictures"), (drawn.len() * passes) as u64);
    let mut before = 0;
    evaluate_images(extractor, &drawn, reference, &Bootstrap::default(), &mut |seen| {
        for _ in before..seen {
            progress.step("");
        }
        before = seen;
    })
}

impl Background {
    fn colour(self) -> [u8; 3] {
        match self {
            Self::Grey => [128; 3],
            Self::Black => [0; 3],
        }
    }
}
