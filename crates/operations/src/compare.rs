//! `compare`: several runs side by side, and a blind study of them.

use std::path::PathBuf;

use ::report::{Comparison, StudyOptions, Tally};
use anyhow::Result;
use requests::Compare;
use runs::ResultsFolder;
use serde::Serialize;

use crate::context::Context;

/// Runs side by side, or the answers of a study.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// Runs.
    Runs {
        /// The folder with compare.html, compare.json and perhaps study.html.
        folder: PathBuf,
        /// Whether there is a study.
        study: bool,
        /// The scores, for people.
        #[serde(skip)]
        table: String,
    },
    /// Answers.
    Answers {
        /// What people have preferred.
        table: String,
    },
}

/// Counts files of answers.
pub(crate) fn tally(files: &[PathBuf], context: &Context<'_>) -> Result<Tally> {
    let tally = ::report::tally(files)?;
    context.notes(tally.repeated.iter().map(|repeated| {
        format!("{} is of a participant who was counted already, and is left out", repeated.display())
    }));
    Ok(tally)
}

pub(crate) fn run(request: &Compare, context: &Context<'_>) -> Result<Compared> {
    if !request.answers.is_empty() {
        return Ok(Compared::Answers { table: tally(&request.answers, context)?.table() });
    }
    let comparison = Comparison::open(&request.runs)?;
    let results = ResultsFolder::check(&request.out, "compare", &["compare.json"])?;
    let page = comparison.page(request.images)?;
    let options = StudyOptions {
        questions: request.questions as usize,
        seed: context.seed(request.seed),
        reference: request.reference.clone(),
    };
    results.create()?;
    atomic::write(&request.out.join("compare.html"), page)?;
    atomic::write(&request.out.join("compare.json"), serde_json::to_vec_pretty(&comparison.record())?)?;
    // Runs can be compared that a study cannot be made of.
    let study = match comparison.study(&options) {
        Ok(study) => {
            atomic::write(&request.out.join("study.html"), study)?;
            true
        }
        Err(reason) => {
            context.note(format!("there is no study: {reason:#}"));
            false
        }
    };
    Ok(Compared::Runs { folder: request.out.clone(), study, table: comparison.table() })
}
