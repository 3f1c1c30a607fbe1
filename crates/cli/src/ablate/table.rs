//! What an ablation has shown: a table as text, as data and in pictures.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use evaluation::{across_runs, paired_differences};
use images::Grid;
use runs::{Ablation, AblationRow, AcrossRuns, Bootstrap, Differences, Estimate, Evaluation, PromptScores};

use super::Variant;

/// Pictures in a row of the grid.
const COLUMNS: usize = 8;

/// A run, evaluated.
pub(super) struct Run {
    pub(super) variant: Variant,
    pub(super) subject: String,
    pub(super) seed: u64,
    pub(super) evaluation: Evaluation,
    /// The folder that the record and its pictures are in.
    pub(super) pictures: PathBuf,
}

/// A row for each variant, of the same runs in the same order.
pub(super) fn ablation(variants: &[Variant], runs: &[Run]) -> Result<Ablation> {
    let bootstrap = Bootstrap::default();
    let of = |variant: Variant| runs.iter().filter(move |run| run.variant == variant);
    let scores = |&variant: &Variant| {
        let evaluations: Vec<&Evaluation> = of(variant).map(|run| &run.evaluation).collect();
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

/// Writes the table as data, and the pictures of each subject's first seed: a row for each variant.
pub(super) fn write(table: &Ablation, out: &Path, runs: &[Run]) -> Result<()> {
    table.write(out)?;
    let first = runs.first().map(|run| run.seed);
    let mut grid: Option<Grid> = None;
    for run in runs.iter().filter(|run| Some(run.seed) == first) {
        let Some(variant) = run.evaluation.variants.first() else { continue };
        let prompts = &variant.scores.prompts;
        // Spread over the set, whose kinds of prompts stand together.
        let count = prompts.len().min(COLUMNS);
        let chosen: Vec<&PromptScores> = (0..count).map(|i| &prompts[i * prompts.len() / count]).collect();
        let grid = grid.get_or_insert_with(|| Grid::new(count));
        for prompt in chosen {
            let Some(first) = prompt.images.first() else { continue };
            let path = run.pictures.join(&variant.folder).join(&first.file);
            let picture = image::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let text = prompt.prompt.replace("{}", "[V]");
            grid.push(picture.into_rgb8(), format!("{}: {text}", run.variant.name()));
        }
    }
    match grid {
        Some(grid) => images::save_generated(&out.join("ablation.png"), &grid.draw(), &[]),
        None => Ok(()),
    }
}

pub(super) fn print(table: &Ablation) {
    let show = |Estimate { mean, low, high }: &Estimate| format!("{mean:.4} [{low:.4}, {high:.4}]");
    let less = |Estimate { mean, low, high }: &Estimate| format!("{mean:+.4} [{low:+.4}, {high:+.4}]");
    let subjects: BTreeSet<&String> = table.runs.iter().map(|(subject, _)| subject).collect();
    let level = 100.0 * Bootstrap::default().level;
    terminal::output!("{} runs each, of {} subject(s); {level:.0} % intervals", table.runs.len(), subjects.len());
    terminal::output!("{:<20}  {:<24}  {:<24}  {:<27}  against full", "", "CLIP-I", "CLIP-T", "against full");
    for AblationRow { variant, scores, against_full } in &table.variants {
        let [i, t] = [&scores.clip_i, &scores.clip_t].map(show);
        let differences = against_full.as_ref().map(|Differences { clip_i, clip_t }| [clip_i, clip_t].map(less));
        let [less_i, less_t] = differences.unwrap_or_default();
        terminal::output!("{:<20}  {i:<24}  {t:<24}  {less_i:<27}  {less_t}", variant);
    }
}
