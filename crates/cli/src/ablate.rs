//! `ablate`: what each stage and the regulariser are good for.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use evaluation::{AcrossSeeds, Bootstrap, Estimate, Record};
use pictures::Grid;
use serde::Serialize;

/// Learn a subject several times, each time without a part of the method, and compare (the paper's figures 7 and 13).
///
/// Every variant runs with the same seeds; all of it goes on where it was interrupted. Options of `train` follow after --:
/// `ablate --out runs/ablation -- --model MODEL --concept PHOTOS --category dog`.
#[derive(Args, Debug)]
pub(crate) struct Ablate {
    /// The folder for all runs, the table and the grid
    #[arg(long)]
    out: PathBuf,
    /// What to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Variant::ALL)]
    variants: Vec<Variant>,
    /// The seeds that each variant runs with
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// A set of prompts, or a file, as for `evaluate`
    #[arg(long, default_value = "ours24")]
    prompts: String,
    /// Pictures of each prompt and seed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Denoising steps
    #[arg(long, default_value_t = 50)]
    steps: usize,
    /// What `train` is given: at least the photos, their category and the model
    #[arg(last = true, required = true)]
    train: Vec<String>,
}

/// The method, whole or without a part.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Variant {
    /// The whole method
    Full,
    /// Without learning the embedding first
    WithoutStage1,
    /// Without tuning cross-attention first
    WithoutStage2,
    /// Without tuning the whole U-Net
    WithoutStage3,
    /// Without regularising attention
    WithoutRegularizer,
}

/// A variant's scores over its seeds.
#[derive(Debug, Serialize)]
struct Row {
    variant: Variant,
    #[serde(flatten)]
    scores: AcrossSeeds,
}

impl Variant {
    const ALL: [Self; 5] =
        [Self::Full, Self::WithoutStage1, Self::WithoutStage2, Self::WithoutStage3, Self::WithoutRegularizer];

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it sets in the configuration.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[],
            Self::WithoutStage1 => &["embedding.steps=0"],
            Self::WithoutStage2 => &["cross_attention.steps=0"],
            Self::WithoutStage3 => &["unet.steps=0"],
            Self::WithoutRegularizer => &[
                "embedding.lambda_mean=0",
                "embedding.lambda_variance=0",
                "cross_attention.lambda_mean=0",
                "cross_attention.lambda_variance=0",
                "unet.lambda_mean=0",
                "unet.lambda_variance=0",
            ],
        }
    }
}

impl Ablate {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(
            !self.variants.is_empty() && !self.seeds.is_empty(),
            "there is nothing to do: no variants, or no seeds"
        );
        for name in ["--out", "--seed", "--resume"] {
            ensure!(
                !self.train.iter().any(|arg| arg == name),
                "{name} is what ablate itself gives to train; leave it out"
            );
        }
        let total = self.variants.len() * self.seeds.len();
        let mut rows = Vec::new();
        for &variant in &self.variants {
            let mut records = Vec::new();
            for &seed in &self.seeds {
                let number = rows.len() * self.seeds.len() + records.len() + 1;
                eprintln!("run {number} of {total}: {}, seed {seed}", variant.name());
                records.push(self.one(variant, seed)?);
            }
            let scores = AcrossSeeds::of(&records, &Bootstrap::default());
            ensure!(
                scores.by_seed.iter().flatten().all(|mean| mean.is_finite()),
                "an evaluation of {} has no pictures; remove its folder and start again",
                variant.name()
            );
            rows.push(Row { variant, scores });
            self.write(&rows)?;
        }
        print(&rows);
        eprintln!("the runs, ablation.json and ablation.png are in {}", self.out.display());
        Ok(())
    }

    fn folder(&self, variant: Variant, seed: u64) -> PathBuf {
        self.out.join(variant.name()).join(format!("seed-{seed}"))
    }

    /// Trains and evaluates, as far as that has not been done, in processes of their own: each starts with all memory.
    fn one(&self, variant: Variant, seed: u64) -> Result<Record> {
        let run = self.folder(variant, seed);
        let folder = run.display().to_string();
        if trainer::FinishedRun::open(&run).is_err() {
            let mut train = vec!["train".to_owned()];
            if run.join("config.json").exists() {
                train.extend(["--resume", "--results", "none", "--out", &folder].map(str::to_owned));
            } else {
                train.extend(self.train.iter().cloned());
                train.extend(["--results", "none", "--out", &folder, "--seed", &seed.to_string()].map(str::to_owned));
                train.extend(variant.settings().iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]));
            }
            child(&train)?;
        }
        let scores = run.join("evaluation").join("ablation");
        let (images, steps) = (self.images.to_string(), self.steps.to_string());
        let out = scores.display().to_string();
        let evaluate =
            ["evaluate", "--run", &folder, "--prompts", &self.prompts, "--images", &images, "--steps", &steps];
        let evaluate = evaluate.into_iter().chain(["--out", &out]);
        child(&evaluate.map(str::to_owned).collect::<Vec<_>>())?;
        Record::open(&scores.join("scores.json"))
    }

    /// The table as data, and the first seed's pictures: a row for each variant.
    fn write(&self, rows: &[Row]) -> Result<()> {
        /// Pictures in a row.
        const COLUMNS: usize = 8;
        atomic::write(&self.out.join("ablation.json"), serde_json::to_string_pretty(rows)?)?;
        let mut grid = None;
        for row in rows {
            let folder = self.folder(row.variant, self.seeds[0]).join("evaluation/ablation");
            let record = Record::open(&folder.join("scores.json"))?;
            let Some(variant) = record.variants.first() else { continue };
            let count = variant.scores.prompts.len().min(COLUMNS);
            let grid = grid.get_or_insert_with(|| Grid::new(count));
            for prompt in variant.scores.prompts.iter().take(count) {
                let Some(first) = prompt.images.first() else { continue };
                let path = folder.join(&variant.folder).join(&first.file);
                let picture = image::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
                grid.push(
                    picture.into_rgb8(),
                    format!("{}: {}", row.variant.name(), prompt.prompt.replace("{}", "[V]")),
                );
            }
        }
        match grid {
            Some(grid) => pictures::save_png(&self.out.join("ablation.png"), &grid.draw(), &[]),
            None => Ok(()),
        }
    }
}

/// Runs another command of this program.
fn child(arguments: &[String]) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let status = Command::new(program).args(arguments).status().context("cannot start this program again")?;
    ensure!(status.success(), "`{}` ended with {status}; the same command goes on from there", arguments.join(" "));
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the table is what was asked for")]
fn print(rows: &[Row]) {
    let show = |estimate: &Estimate| format!("{:.4} [{:.4}, {:.4}]", estimate.mean, estimate.low, estimate.high);
    println!("{:<20}  {:<24}  {:<24}", "", "CLIP-I", "CLIP-T");
    for row in rows {
        println!("{:<20}  {:<24}  {:<24}", row.variant.name(), show(&row.scores.clip_i), show(&row.scores.clip_t));
    }
}
