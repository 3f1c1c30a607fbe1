//! Deleting a run, an image, photos or an exported file, after a question.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Error, Result, bail, ensure};
use axum::extract::{Form, Query, State};
use axum::response::Redirect;
use maud::{Markup, html};
use runs::{Lock, TrainConfig};
use serde::Deserialize;

use crate::answer::{Answer, Failure, Page, blocking, see};
use crate::folder::bytes;
use crate::jobs::{Job, Kind};
use crate::name::{Name, encoded};
use crate::run_state::{Doing, RunState};
use crate::source::Source;
use crate::studio::Studio;

/// What can be deleted, as pages name it: `run:NAME`, `photos:NAME`, `image:SOURCE/FILE`, `export:RUN/FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Run(Name),
    Photos(Name),
    Image(Source, Name),
    Export(Name, Name),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(name) => write!(f, "run:{name}"),
            Self::Photos(name) => write!(f, "photos:{name}"),
            Self::Image(source, file) => write!(f, "image:{source}/{file}"),
            Self::Export(run, file) => write!(f, "export:{run}/{file}"),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || format!("{:?} is nothing that can be deleted", terminal::shortened(text));
        let (kind, name) = text.split_once(':').with_context(wrong)?;
        let parts = || name.rsplit_once('/').with_context(wrong);
        Ok(match kind {
            "run" => Self::Run(name.parse()?),
            "photos" => Self::Photos(name.parse()?),
            "image" => Self::Image(parts()?.0.parse()?, parts()?.1.parse()?),
            "export" => Self::Export(parts()?.0.parse()?, parts()?.1.parse()?),
            _ => bail!(wrong()),
        })
    }
}

impl Target {
    /// For people.
    fn shown(&self) -> String {
        match self {
            Self::Run(name) => format!("the run {name}"),
            Self::Photos(name) => format!("the photos {name}"),
            Self::Image(source, file) => format!("the image {file} of {}", source.name()),
            Self::Export(_, file) => format!("the file {file}"),
        }
    }

    /// Where it was shown.
    fn from(&self) -> String {
        match self {
            Self::Run(_) => "/".to_owned(),
            Self::Photos(_) => "/teach".to_owned(),
            Self::Image(..) => "/gallery".to_owned(),
            Self::Export(run, _) => format!("/runs/{}", run.url()),
        }
    }

    /// Where it is on the disk.
    fn path(&self, studio: &Studio) -> Result<PathBuf> {
        let library = &studio.library;
        match self {
            Self::Run(name) => library.known_run(name),
            Self::Photos(name) => library.photos(name),
            Self::Image(source, file) => {
                library.image(source, file.as_str())?;
                Ok(library.images_folder(source)?.join(file.as_str()))
            }
            Self::Export(run, file) => library.export(run, file),
        }
    }

    /// Deletes it, unless it is in use.
    fn delete(&self, studio: &Studio) -> Result<()> {
        let path = self.path(studio)?;
        let place = path.display().to_string();
        let (queue, library) = (&studio.queue, &studio.library);
        // A job names it, or is of the run.
        let named = |job: &Job| job.arguments.iter().any(|argument| argument.contains(&place));
        match self {
            Self::Run(run) => {
                let delete = || {
                    ensure!(Lock::holder(&path).is_none(), "the run {run} is being trained: stop it first");
                    // Whoever would begin with it now is refused, until it has gone.
                    let _lock = Lock::take(&path)?;
                    library.trash.put_away(&path)
                };
                let is_of = |job: &Job| job.run.as_ref() == Some(run) || named(job);
                let mut away = vec![queue.without_jobs(is_of, delete)?];
                queue.forget(run)?;
                if library.exports(run).exists() {
                    away.push(library.trash.put_away(&library.exports(run))?);
                }
                away.iter().try_for_each(|away| library.trash.delete(away))
            }
            Self::Photos(photos) => {
                for run in library.runs() {
                    let Ok(state) = RunState::of(studio, &run) else { continue };
                    ensure!(
                        state.doing == Doing::Finished || !learns_from(&state.config, &path),
                        "the run {run} learns from the photos {photos} and is not finished"
                    );
                }
                let away = queue.without_jobs(named, || library.trash.put_away(&path))?;
                library.trash.delete(&away)
            }
            Self::Image(..) => library.trash.delete(&path),
            Self::Export(run, _) => {
                let exporting = |job: &Job| named(job) || job.kind == Kind::Export && job.run.as_ref() == Some(run);
                let away = queue.without_jobs(exporting, || library.trash.put_away(&path))?;
                library.trash.delete(&away)
            }
        }
    }
}

/// Whether a run's photos are in a folder, however that is called there.
fn learns_from(config: &TrainConfig, folder: &Path) -> bool {
    let further = config.more_concepts.iter().map(|further| &further.concept);
    let mut all = std::iter::once(&config.concept).chain(further);
    all.any(|photos| fs::canonicalize(photos).as_deref().unwrap_or(photos).starts_with(folder))
}

/// A link to the question.
pub(super) fn link(target: &Target) -> Markup {
    html! { a class="delete" href={ "/delete?target=" (encoded(&target.to_string())) } aria-label={ "Delete " (target.shown()) } { @if matches!(target, Target::Run(_)) { "Delete this run" } @else { "Delete" } } }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    target: String,
}

/// The question.
pub(crate) async fn page(State(studio): State<Arc<Studio>>, Query(asked): Query<Asked>) -> Answer {
    blocking(move || {
        let target: Target = asked.target.parse().map_err(Failure::not_found)?;
        let path = target.path(&studio).map_err(Failure::not_found)?;
        let size = match bytes(&path) as f64 {
            bytes @ 1e9.. => format!("{:.1} GB", bytes / 1e9),
            bytes @ 1e6.. => format!("{:.1} MB", bytes / 1e6),
            bytes => format!("{:.1} kB", bytes / 1e3),
        };
        let body = html! {
            section {
                p { @match &target {
                    Target::Run(_) => "All of it goes: what was learned, its images, its scores, and its files for other programs.",
                    Target::Photos(_) => "Runs that have learned from them stay, but can no longer be scored beside them.",
                    Target::Image(..) => "A grid of several images that it is part of stays in the folder.",
                    Target::Export(..) => "It can be made again from the run.",
                } }
                p { (size) " are freed. " "It cannot be undone." }
                @if let Target::Image(source, file) = &target {
                    img class="preview" src={ "/images/" (encoded(&source.to_string())) "/" (file.url()) } alt={ "The image " (file) };
                }
                div class="buttons" {
                    form method="post" action="/delete" {
                        input type="hidden" name="target" value=(target);
                        button class="main" type="submit" id="delete" { "Delete" }
                    }
                    a class="button" href=(target.from()) { "Keep it" }
                }
            }
        };
        Ok(Page { title: format!("Delete {}?", target.shown()), here: "", live: None, lead: html! {}, body })
    })
    .await?
}

pub(crate) async fn delete(State(studio): State<Arc<Studio>>, Form(asked): Form<Asked>) -> Answer<Redirect> {
    let from = blocking(move || -> Result<String> {
        let target: Target = asked.target.parse()?;
        target.delete(&studio)?;
        Ok(target.from())
    })
    .await??;
    Ok(see(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names() {
        for text in
            ["run:my-dog", "photos:my-dog", "image:model:sd2.1-base/0000-seed1.png", "export:my-dog/my-dog.safetensors"]
        {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "run:",
            "run:../x",
            "run:.studio",
            "photos:a/b",
            "image:run:a/..",
            "image:a/b.png",
            "export:../x/y",
            "export:a",
            "/etc",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
