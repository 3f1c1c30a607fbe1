//! `compare`: several runs side by side, and a blind study of them.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use report::{Comparison, StudyOptions};
use runs::ResultsFolder;

use crate::seed::Seed;

/// Put runs side by side: settings, scores and pictures; and make a blind study that asks people which they prefer.
///
/// Pictures are compared where runs have drawn the same prompt from the same seed, by `evaluate` or `generate`. The study is
/// a page to send to people, who send back a file of answers; --answers counts them.
#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// The folders of two training runs or more; the study compares the first with each of the others
    #[arg(value_name = "RUN", required_unless_present = "answers", num_args = 2..)]
    runs: Vec<PathBuf>,
    /// The folder to write to, new, empty or of a call before
    #[arg(long, default_value = "runs/compare")]
    out: PathBuf,
    /// Pictures of each prompt to show at most
    #[arg(long, default_value_t = 4)]
    images: usize,
    /// Questions of the study at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    questions: u32,
    /// The seed of the study's choice and order; -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    seed: Seed,
    /// The photo to show in the study; the run's first if not given
    #[arg(long, value_name = "PHOTO")]
    reference: Option<PathBuf>,
    /// Files of answers to count, in place of a comparison
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "runs")]
    answers: Vec<PathBuf>,
}

impl Compare {
    pub(crate) fn run(self) -> Result<()> {
        if !self.answers.is_empty() {
            return count(&self.answers);
        }
        let comparison = Comparison::open(&self.runs)?;
        let results = ResultsFolder::check(&self.out, "compare", &["compare.json"])?;
        let page = comparison.page(self.images)?;
        let options = StudyOptions {
            questions: self.questions as usize,
            seed: self.seed.announce(),
            reference: self.reference.clone(),
        };
        results.create()?;
        atomic::write(&self.out.join("compare.html"), page)?;
        atomic::write(&self.out.join("compare.json"), serde_json::to_vec_pretty(&comparison.json())?)?;
        terminal::output!("{}", comparison.table());
        // Runs can be compared that a study cannot be made of.
        match comparison.study(&options) {
            Ok(study) => {
                atomic::write(&self.out.join("study.html"), study)?;
                terminal::say!("compare.html, compare.json and study.html in {}", self.out.display());
            }
            Err(reason) => {
                terminal::note!("there is no study: {reason:#}");
                terminal::say!("compare.html and compare.json in {}", self.out.display());
            }
        }
        Ok(())
    }
}

fn count(files: &[PathBuf]) -> Result<()> {
    let tally = report::tally(files)?;
    for repeated in &tally.repeated {
        terminal::note!("{} is of a participant who was counted already, and is left out", repeated.display());
    }
    terminal::output!("{}", tally.table());
    Ok(())
}
