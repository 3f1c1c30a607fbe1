//! `evaluate --check-judge`: what the judge of a base model can see.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use judge::{Agreement, Check, Examination, Labelled};
use requests::Evaluate;
use serde::Serialize;

use crate::evaluate::scoring_clip;
use crate::{compute, models};

/// What a judge can see.
#[derive(Debug, Clone, Serialize)]
pub struct ExaminedJudge {
    /// Its folder.
    pub judge: PathBuf,
    /// What it sees of pictures as they are drawn, and as the base model's VAE rebuilds them.
    pub check: Check,
    /// What it cannot see well enough, in sentences.
    pub failures: Vec<String>,
    /// How often a person says what its reader says of generated images, where a person has looked at some.
    pub agreement: Option<Agreement>,
}

pub(crate) fn run(request: &Evaluate) -> Result<ExaminedJudge> {
    let model = match (&request.run, &request.model) {
        (_, Some(model)) => model.clone(),
        (Some(run), None) => models::finished(run, None)?.base_model()?.path().to_owned(),
        (None, None) => {
            anyhow::bail!("whose judge is to be examined? name its base model with --model, or a run with --run")
        }
    };
    let judge = scoring_clip(request.clip.as_deref(), &model)?;
    let folder = judge.join("examination");
    ensure!(
        folder.is_dir(),
        "{} has no examination/, the pictures that a judge is examined with: only a base model's own judge has it",
        judge.display()
    );
    let device = compute::resolve(request.compute)?.1;
    let check =
        judge::check(&judge, &model, &Examination::open(&folder)?, device).context("the judge's examination")?;
    let labelled = Labelled::open(&folder)?.map(|labelled| labelled.agreement(&judge, device));
    let agreement = labelled.transpose()?;
    Ok(ExaminedJudge { failures: check.failures(), judge, check, agreement })
}
