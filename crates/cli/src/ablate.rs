//! `ablate`: what each stage and the regulariser are good for.

mod table;
mod variant;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser};
use libtorch::DeviceChoice;
use runs::{Evaluation, ResultsFolder, TrainConfig};
use table::Run;
use trainer::FinishedRun;
use variant::Variant;

use crate::evaluate::Evaluate;
use crate::number;
use crate::sampler::SamplerArgs;
use crate::seed::Seed;
use crate::train::{NO_RESULTS, Train};

/// Learn subjects several times, each time without a part of the method, and compare (the paper's figures 7 and 13).
///
/// Every variant runs with the same subjects and seeds; all of it goes on where it was interrupted. Options of `train`
/// follow after --: `ablate --subject photos/rex=dog --out runs/ablation -- --model MODEL`.
#[derive(Args, Debug)]
pub(crate) struct Ablate {
    /// A folder of photos, or a single one, and the word for what they show; may be given several times
    #[arg(long = "subject", value_name = "PHOTOS=CATEGORY", required = true, value_parser = subject)]
    subjects: Vec<Subject>,
    /// The folder for all runs, the table and the grid
    #[arg(long)]
    out: PathBuf,
    /// What to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Variant::ALL)]
    variants: Vec<Variant>,
    /// The seeds that each variant runs with; --seeds=-1 for a random one, which is shown
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 2].map(Seed::from), allow_negative_numbers = true)]
    seeds: Vec<Seed>,
    /// A set of prompts, or a file, as for `evaluate`
    #[arg(long, default_value = "ours24")]
    prompts: String,
    /// Pictures of each prompt and seed
    #[arg(long, default_value_t = 1, value_parser = number::within(number::IMAGES, number::IMAGES_REASON))]
    images: u32,
    #[command(flatten)]
    sampler: SamplerArgs,
    /// The folder of the CLIP that judges, as for `evaluate`
    #[arg(long)]
    clip: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// What `train` is given besides: at least the model
    #[arg(last = true, required = true)]
    train: Vec<String>,
}

/// What `train` would make of its options.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    train: Train,
}

/// Whom to learn.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    photos: String,
    category: String,
    /// The name of its photos' folder.
    name: String,
}

fn subject(text: &str) -> Result<Subject> {
    let parts = text.rsplit_once('=').filter(|(photos, category)| !photos.is_empty() && !category.is_empty());
    let (photos, category) = parts.with_context(|| format!("{text:?} is not PHOTOS=CATEGORY, as photos/rex=dog"))?;
    let path = PathBuf::from(photos);
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let name = name.map(|name| name.to_string_lossy().into_owned());
    let name = name.with_context(|| format!("the photos {photos:?} have no name"))?;
    Ok(Subject { photos: photos.to_owned(), category: category.to_owned(), name })
}

impl Ablate {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(
            !self.variants.is_empty() && !self.seeds.is_empty(),
            "there is nothing to do: no variants, or no seeds"
        );
        let flags = ["--out", "--seed", "--resume", "--concept", "--category", "--device", "--results"];
        let settings = ["seed", "concept", "category", "validation.results"];
        for arg in &self.train {
            // A --set would win over the flags.
            let name = arg.strip_prefix("--set=").unwrap_or(arg).split('=').next().unwrap_or_default();
            ensure!(
                !flags.contains(&name) && !settings.contains(&name),
                "{name} is what ablate itself gives to train; leave it out"
            );
        }
        let repeated = |i: usize| self.seeds[..i].contains(&self.seeds[i]);
        ensure!(!(0..self.seeds.len()).any(repeated), "a seed is given twice: its runs would be the same");
        let repeated = |i: usize| self.variants[..i].iter().any(|other| other.name() == self.variants[i].name());
        ensure!(!(0..self.variants.len()).any(repeated), "a variant is given twice");
        for (i, Subject { name, .. }) in self.subjects.iter().enumerate() {
            ensure!(
                self.subjects[..i].iter().all(|other| &other.name != name),
                "two subjects are called {name}; their photos' folders need names of their own"
            );
        }
        let results = ResultsFolder::check(&self.out, "ablate", &["ablation.json"])?;
        results.create()?;
        let (mut runs, mut table) = (Vec::new(), None);
        let total = self.seeds.len() * self.subjects.len() * self.variants.len();
        for seed in self.seeds.iter().map(|seed| seed.announce()) {
            for subject in &self.subjects {
                for &variant in &self.variants {
                    let number = runs.len() + 1;
                    terminal::say!("run {number} of {total}: {}, {}, seed {seed}", subject.name, variant.name());
                    runs.push(self.one(subject, variant, seed)?);
                }
            }
            // All variants have the same runs now.
            let ablation = table.insert(table::ablation(&self.variants, &runs)?);
            table::write(ablation, &self.out, &runs)?;
        }
        table.iter().for_each(table::print);
        terminal::say!("the runs, ablation.json and ablation.png are in {}", self.out.display());
        Ok(())
    }

    /// Trains and evaluates, as far as that has not been done.
    fn one(&self, subject: &Subject, variant: Variant, seed: u64) -> Result<Run> {
        let run = self.out.join(&subject.name).join(variant.name()).join(format!("seed-{seed}"));
        let mut train = self.train(subject, variant, seed, &run)?;
        match FinishedRun::open(&run) {
            Ok(finished) if finished.is_complete() => check_same(&train.config()?, finished, &run)?,
            _ => {
                train.resume = run.join("config.json").exists();
                train.learn().with_context(|| format!("run {}", terminal::path(&run)))?;
            }
        }
        let pictures = run.join("evaluation").join("ablation");
        let evaluate = Evaluate {
            model: Some(train.config()?.model),
            concept: train.concept.clone(),
            images: self.images,
            clip: self.clip.clone(),
            out: Some(pictures.clone()),
            sampler: self.sampler.clone(),
            ..Evaluate::new(&run, &self.prompts, self.device)
        };
        evaluate.execute().with_context(|| format!("evaluation of {}", terminal::path(&run)))?;
        let evaluation = Evaluation::read(&pictures)?.context("the evaluation has no scores.json")?;
        Ok(Run { variant, subject: subject.name.clone(), seed, evaluation, pictures })
    }

    /// What `train` makes of the options after `--`, with what is the run's own in place of theirs.
    fn train(&self, subject: &Subject, variant: Variant, seed: u64, run: &Path) -> Result<Train> {
        let own = [OsString::from("train"), "--out".into(), run.into()];
        let given = own.into_iter().chain(self.train.iter().map(OsString::from));
        let mut train = Options::try_parse_from(given).context("the options after --, which are those of train")?.train;
        train.concept = Some(PathBuf::from(&subject.photos));
        train.category = Some(subject.category.clone());
        train.seed = Some(seed.into());
        train.results = Some(NO_RESULTS.to_owned());
        train.device = self.device;
        train.set.extend(variant.settings().iter().map(|&setting| setting.to_owned()));
        Ok(train)
    }
}

/// Refuses a run that other options have made: a table of both would compare what cannot be compared. Its model and its
/// photos are the same by their contents, wherever they are.
fn check_same(wanted: &TrainConfig, mut made: FinishedRun, run: &Path) -> Result<()> {
    let mut wanted = wanted.clone();
    // Where it is not given, the model says it.
    wanted.augmentation.resolution = made.config.augmentation.resolution;
    let differences = runs::differences(&made.identity()?, &wanted.identity()?);
    ensure!(
        differences.is_empty(),
        "the run in {} was made with other options: {}; give those again, or another --out",
        run.display(),
        differences.join("; ")
    );
    (made.config.model, made.config.concept) = (wanted.model, wanted.concept);
    made.base_model()?;
    made.photos()?;
    Ok(())
}
