//! `train --batch`: many subjects, each in a run of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use requests::{NO_RESULTS, Train};
use runs::{SavedRun, layout};
use serde::Serialize;
use subjects::Subject;
use trainer::FinishedRun;

use crate::context::Context;
use crate::destination::Destination;
use crate::pieces::{self, Piece};
use crate::{config, same_run, train};

/// Runs of many subjects.
#[derive(Debug, Clone, Serialize)]
pub struct Batched {
    /// The folder of all runs, or its URL.
    pub folder: PathBuf,
    /// Those that are finished now, of those that were asked for.
    pub done: usize,
}

pub(crate) fn run(request: &Train, file: &Path, context: &Context<'_>) -> Result<Batched> {
    let subjects = subjects::read(file, &request.options)?;
    let folder = request.out.clone().unwrap_or_else(|| {
        let name = file.file_stem().unwrap_or_default();
        PathBuf::from("runs").join(name)
    });
    let part = pieces::part("subject", subjects.len(), request.share)?;
    let destination = Destination::new(&folder, request.share.upload_checkpoints)?;
    destination.create("train --batch", &[])?;
    let of = |subject| SubjectWork { subject, request, folder: destination.folder() };
    let all: Vec<SubjectWork<'_>> = subjects.into_iter().map(of).collect();
    let done = pieces::work("subject", &all, &part, &destination, context)?;
    Ok(Batched { folder, done })
}

/// A subject to learn.
struct SubjectWork<'a> {
    subject: Subject,
    request: &'a Train,
    folder: &'a Path,
}

impl SubjectWork<'_> {
    fn folder(&self) -> PathBuf {
        self.folder.join(&self.subject.name)
    }
}

impl Piece for SubjectWork<'_> {
    fn name(&self) -> String {
        self.subject.name.clone()
    }

    fn place(&self) -> PathBuf {
        self.subject.name.clone().into()
    }

    fn marker(&self) -> &'static str {
        layout::CONFIG
    }

    fn run(&self) -> PathBuf {
        PathBuf::new()
    }

    fn check(&self, folder: &Path, shown: &Path) -> Result<()> {
        let made = SavedRun { folder: shown.to_owned(), ..SavedRun::read(folder)? };
        same_run::check(config::layers(&self.subject.options, None)?.finish()?, &made, shown)
    }

    fn is_done(&self) -> Result<bool> {
        let run = self.folder();
        let Some(finished) = FinishedRun::open(&run).ok().filter(FinishedRun::is_complete) else { return Ok(false) };
        let shown = finished.config.validation.results == NO_RESULTS || run.join(layout::REPORT).exists();
        self.check(&run, &run)?;
        Ok(shown)
    }

    fn work(&self, context: &Context<'_>) -> Result<()> {
        let run = self.folder();
        let resume = run.join(layout::CONFIG).exists();
        let options = self.subject.options.clone();
        let Train { device, profiling, .. } = self.request.clone();
        let request = Train { options, out: Some(run.clone()), resume, device, profiling, ..Train::default() };
        train::run(&request, context).map(|_| ()).with_context(|| format!("run {}", terminal::path(&run)))
    }
}
