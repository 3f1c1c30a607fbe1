//! `ablate`: what each stage and the regulariser are good for.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use evaluation::{across_runs, paired_differences};
use images::Grid;
use requests::{Ablate, AblatedSubject, AblationVariant as Variant, Compute, Evaluate, NO_RESULTS, Train};
use runs::{Ablation, AblationRow, AcrossRuns, Evaluation, PromptScores, ResultsFolder, SavedRun};
use serde::Serialize;
use statistics::Bootstrap;
use trainer::FinishedRun;

use crate::context::Context;
use crate::{config, evaluate, same_run, train};

/// Images in a row of the grid.
const COLUMNS: usize = 8;

/// What an ablation has shown.
#[derive(Debug, Clone, Serialize)]
pub struct Ablated {
    /// The folder with all runs, ablation.json and ablation.png.
    pub folder: PathBuf,
    /// What ablation.json says.
    pub ablation: Ablation,
}

/// A run, evaluated.
struct Run {
    variant: Variant,
    subject: String,
    seed: u64,
    record: Evaluation,
    /// The folder that the record and its images are in.
    images: PathBuf,
}

pub(crate) fn run(request: &Ablate, context: &Context<'_>) -> Result<Ablated> {
    check(request)?;
    let results = ResultsFolder::check(&request.out, "ablate", &["ablation.json"])?;
    results.create()?;
    let (mut runs, mut ablated) = (Vec::new(), None);
    let total = request.seeds.len() * request.subjects.len() * request.variants.len();
    for seed in &request.seeds {
        let seed = context.seed(*seed);
        for subject in &request.subjects {
            for &variant in &request.variants {
                context.check()?;
                let number = runs.len() + 1;
                context.message(format!("run {number} of {total}: {}, {}, seed {seed}", subject.name, variant.name()));
                runs.push(one(request, subject, variant, seed, context)?);
            }
        }
        // All variants have the same runs now.
        write(ablated.insert(ablation(&request.variants, &runs)?), &request.out, &runs)?;
    }
    let ablation = ablated.context("there is nothing to do: no seeds")?;
    Ok(Ablated { folder: request.out.clone(), ablation })
}

/// Refuses what cannot be compared, and what is not the caller's to say.
fn check(request: &Ablate) -> Result<()> {
    let Ablate { variants, seeds, subjects, train, .. } = request;
    ensure!(!variants.is_empty() && !seeds.is_empty(), "there is nothing to do: no variants, or no seeds");
    let options = &train.0;
    let flags = [
        ("--seed", options.seed.is_some()),
        ("--concept", options.concept.is_some()),
        ("--category", options.category.is_some()),
        ("--results", options.results.is_some()),
    ];
    // A --set would win over the flags.
    let own = ["seed", "concept", "category", "validation.results"];
    let set = options.set.iter().filter_map(|pair| pair.split('=').next()).filter(|path| own.contains(path));
    if let Some(name) = flags.iter().filter(|(_, given)| *given).map(|(name, _)| *name).chain(set).next() {
        anyhow::bail!("{name} is what ablate itself gives to train; leave it out");
    }
    let repeated = |i: usize| seeds[..i].contains(&seeds[i]);
    ensure!(!(0..seeds.len()).any(repeated), "a seed is given twice: its runs would be the same");
    let repeated = |i: usize| variants[..i].contains(&variants[i]);
    ensure!(!(0..variants.len()).any(repeated), "a variant is given twice");
    for (i, AblatedSubject { name, .. }) in subjects.iter().enumerate() {
        ensure!(
            subjects[..i].iter().all(|other| &other.name != name),
            "two subjects are called {name}; their photos' folders need names of their own"
        );
    }
    Ok(())
}

/// Trains and evaluates, as far as that has not been done.
fn one(request: &Ablate, subject: &AblatedSubject, variant: Variant, seed: u64, context: &Context<'_>) -> Result<Run> {
    let run = request.out.join(&subject.name).join(variant.name()).join(format!("seed-{seed}"));
    let mut options = (*request.train.0).clone();
    options.concept = Some(subject.photos.clone());
    options.category = Some(subject.category.clone());
    options.seed = Some(seed.into());
    options.results = Some(NO_RESULTS.to_owned());
    options.set.extend(changes(variant).iter().map(|&change| change.to_owned()));
    let expected = config::layers(&options, None)?.finish()?;
    let (model, concept) = (Some(expected.model.clone()), options.concept.clone());
    match FinishedRun::open(&run) {
        Ok(finished) if finished.is_complete() => same_run::check(expected, &SavedRun::read(&run)?, &run)?,
        _ => {
            let resume = run.join("config.json").exists();
            let request = Train { options, resume, device: request.device, ..Train::default() };
            train::learn(&request, &run, context).with_context(|| format!("run {}", terminal::path(&run)))?;
        }
    }
    let images = run.join("evaluation").join("ablation");
    let evaluation = Evaluate {
        model,
        concept,
        prompts: Some(request.prompts.clone()),
        images: request.images,
        clip: request.clip.clone(),
        out: Some(images.clone()),
        sampler: request.sampler.clone(),
        compute: Compute { device: request.device, ..Compute::default() },
        ..Evaluate::new(&run)
    };
    let evaluated =
        evaluate::run(&evaluation, context).and_then(|evaluated| evaluated.context("rank 0 has the scores"));
    let record = evaluated.with_context(|| format!("evaluation of {}", terminal::path(&run)))?.record;
    Ok(Run { variant, subject: subject.name.clone(), seed, record, images })
}

/// What a variant sets in the configuration.
fn changes(variant: Variant) -> &'static [&'static str] {
    match variant {
        Variant::Full => &[],
        Variant::WithoutStage1 => &["phases.embedding.steps=0"],
        Variant::WithoutStage2 => &["phases.cross_attention.steps=0"],
        Variant::WithoutStage3 => &["phases.unet.steps=0"],
        Variant::WithoutRegularizer => &[
            "phases.embedding.lambda_mean=0",
            "phases.embedding.lambda_variance=0",
            "phases.cross_attention.lambda_mean=0",
            "phases.cross_attention.lambda_variance=0",
            "phases.unet.lambda_mean=0",
            "phases.unet.lambda_variance=0",
        ],
    }
}

/// A row for each variant, of the same runs in the same order.
fn ablation(variants: &[Variant], runs: &[Run]) -> Result<Ablation> {
    let bootstrap = Bootstrap::default();
    let of = |variant: Variant| runs.iter().filter(move |run| run.variant == variant);
    let scores = |&variant: &Variant| {
        let evaluations: Vec<&Evaluation> = of(variant).map(|run| &run.record).collect();
        across_runs(&evaluations, &bootstrap)
    };
    let all: Vec<AcrossRuns> = variants.iter().map(scores).collect();
    for (variant, scores) in variants.iter().zip(&all) {
        ensure!(
            scores.by_run.iter().flatten().all(|mean| mean.is_finite()),
            "an evaluation of {} has no images; remove its folder and start again",
            variant.name()
        );
    }
    let pairs: Vec<(String, u64)> = of(variants[0]).map(|run| (run.subject.clone(), run.seed)).collect();
    let subjects: Vec<&String> = pairs.iter().map(|(subject, _)| subject).collect();
    let full = variants.iter().position(|&variant| variant == Variant::Full).map(|place| all[place].clone());
    let row = |(&variant, scores): (&Variant, AcrossRuns)| {
        let full = full.as_ref().filter(|_| variant != Variant::Full);
        let against_full = full.map(|full| paired_differences(&scores, full, &subjects, &bootstrap));
        AblationRow { variant: variant.name(), scores, against_full }
    };
    let rows = variants.iter().zip(all).map(row).collect();
    Ok(Ablation { runs: pairs, variants: rows })
}

/// Writes the table as data, and the images of each subject's first seed: a row for each variant.
fn write(ablation: &Ablation, out: &Path, runs: &[Run]) -> Result<()> {
    ablation.write(out)?;
    let first = runs.first().map(|run| run.seed);
    let mut grid: Option<Grid> = None;
    for run in runs.iter().filter(|run| Some(run.seed) == first) {
        let Some(variant) = run.record.variants.first() else { continue };
        let prompts = &variant.scores.prompts;
        // Spread over the set, in which prompts of a kind are together.
        let count = prompts.len().min(COLUMNS);
        let chosen: Vec<&PromptScores> = (0..count).map(|i| &prompts[i * prompts.len() / count]).collect();
        let grid = grid.get_or_insert_with(|| Grid::new(count));
        for prompt in chosen {
            let Some(first) = prompt.images.first() else { continue };
            let path = run.images.join(&variant.folder).join(&first.file);
            let image = image::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let text = prompt.prompt.replace("{}", "[V]");
            grid.push(image.into_rgb8(), format!("{}: {text}", run.variant.name()));
        }
    }
    match grid {
        Some(grid) => images::save_generated(&out.join("ablation.png"), &grid.draw(), &[]),
        None => Ok(()),
    }
}
