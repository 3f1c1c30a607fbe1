//! `ablate`: what each stage and the regulariser are good for.

mod table;
mod variant;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use evaluation::Record;
use table::{Run, Table};
use variant::Variant;

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
    /// What `train` is given besides: at least the model
    #[arg(last = true, required = true)]
    train: Vec<String>,
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
    let name = PathBuf::from(photos).file_stem().map(|name| name.to_string_lossy().into_owned());
    let name = name.with_context(|| format!("the photos {photos:?} have no name"))?;
    Ok(Subject { photos: photos.to_owned(), category: category.to_owned(), name })
}

impl Ablate {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(
            !self.variants.is_empty() && !self.seeds.is_empty(),
            "there is nothing to do: no variants, or no seeds"
        );
        for name in ["--out", "--seed", "--resume", "--concept", "--category"] {
            ensure!(
                !self.train.iter().any(|arg| arg == name),
                "{name} is what ablate itself gives to train; leave it out"
            );
        }
        for (i, Subject { name, .. }) in self.subjects.iter().enumerate() {
            ensure!(
                self.subjects[..i].iter().all(|other| &other.name != name),
                "two subjects are called {name}; their photos' folders need names of their own"
            );
        }
        let mut runs = Vec::new();
        let total = self.seeds.len() * self.subjects.len() * self.variants.len();
        for &seed in &self.seeds {
            for subject in &self.subjects {
                for &variant in &self.variants {
                    let number = runs.len() + 1;
                    eprintln!("run {number} of {total}: {}, {}, seed {seed}", subject.name, variant.name());
                    runs.push(self.one(subject, variant, seed)?);
                }
            }
            // All variants have the same runs now.
            Table::new(&self.variants, &runs)?.write(&self.out, &runs)?;
        }
        Table::new(&self.variants, &runs)?.print();
        eprintln!("the runs, ablation.json and ablation.png are in {}", self.out.display());
        Ok(())
    }

    /// Trains and evaluates, as far as that has not been done, in processes of their own: each starts with all memory.
    fn one(&self, subject: &Subject, variant: Variant, seed: u64) -> Result<Run> {
        let run = self.out.join(&subject.name).join(variant.name()).join(format!("seed-{seed}"));
        let folder = run.display().to_string();
        if trainer::FinishedRun::open(&run).is_err() {
            let mut train = ["train", "--results", "none", "--out", &folder].map(str::to_owned).to_vec();
            if run.join("config.json").exists() {
                train.push("--resume".to_owned());
            } else {
                let Subject { photos, category, .. } = subject;
                let seed = seed.to_string();
                train.extend(["--concept", photos, "--category", category, "--seed", &seed].map(str::to_owned));
                train.extend(self.train.iter().cloned());
                train.extend(variant.settings().iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]));
            }
            child(&train)?;
        }
        let pictures = run.join("evaluation").join("ablation");
        let (images, steps) = (self.images.to_string(), self.steps.to_string());
        let out = pictures.display().to_string();
        let evaluate =
            ["evaluate", "--run", &folder, "--prompts", &self.prompts, "--images", &images, "--steps", &steps];
        let evaluate = evaluate.into_iter().chain(["--out", &out]);
        child(&evaluate.map(str::to_owned).collect::<Vec<_>>())?;
        let record = Record::open(&pictures.join("scores.json"))?;
        Ok(Run { variant, subject: subject.name.clone(), seed, record, pictures })
    }
}

/// Runs another command of this program.
fn child(arguments: &[String]) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let status = Command::new(program).args(arguments).status().context("cannot start this program again")?;
    ensure!(status.success(), "`{}` ended with {status}; the same command goes on from there", arguments.join(" "));
    Ok(())
}
