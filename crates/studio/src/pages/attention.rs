//! Where each word of a prompt acts, as a run's model sees it.

use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Form, Path, State};
use axum::response::{Redirect, Response};
use maud::{Markup, html};
use runs::{Attention, layout};
use serde::Deserialize;

use super::run::{self, jobs_of};
use crate::answer::{Answer, Failure, Page, blocking, see, visible};
use crate::jobs::{Job, Kind};
use crate::live::Parts;
use crate::name::{Name, encoded};
use crate::parts::{self, field, number};
use crate::request;
use crate::run_state::RunState;
use crate::studio::Studio;

/// What is asked for on the page of attention maps.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Attending {
    prompt: String,
    seed: String,
    steps: String,
    phases: String,
}

pub(crate) async fn page(State(studio): State<Arc<Studio>>, Path(name): Path<Name>) -> Answer {
    blocking(move || {
        let folder = studio.library.known_run(&name).map_err(Failure::not_found)?;
        let state = RunState::of(&studio, &name)?;
        let lead = html! { p { "Where each word of a prompt acts. " a href={ "/runs/" (name.url()) } { "Back to the run" } } };
        let body = html! {
            section {
                h2 { "Prompt" }
                form method="post" action={ "/runs/" (name.url()) "/attention" } class="form" {
                    (field("prompt", "Prompt", "With [V] for the subject", &html! { input id="prompt" name="prompt" required maxlength="1000" value=(format!("a [V] {} on the beach", state.config.category)); }))
                    (number("seed", "Seed", "", "0", "1"))
                    (number("steps", "Steps", "", "25", "1"))
                    div class="field check" { input id="phases" name="phases" type="checkbox" value="1"; label for="phases" { "Base model and each phase" } }
                    div class="buttons wide" { button class="main" type="submit" { "Show" } }
                }
            }
            div id="attending" { (attending(&studio, &name)) }
            div id="maps" { (maps(&name, &folder)?) }
        };
        Ok(Page { title: format!("Attention of {name}"), here: "Runs", live: Some(format!("/runs/{}/attention/events", name.url())), lead, body })
    })
    .await?
}

/// What the page of attention maps follows.
pub(crate) fn live(studio: &Studio, name: &Name) -> Parts {
    let maps = studio
        .library
        .known_run(name)
        .and_then(|folder| maps(name, &folder))
        .unwrap_or_else(|error| html! { p role="alert" { (format!("{error:#}")) } });
    vec![("attending".into(), visible(attending(studio, name))), ("maps".into(), visible(maps))]
}

fn attending(studio: &Studio, name: &Name) -> Markup {
    let jobs: Vec<Job> = jobs_of(studio, name).into_iter().filter(|job| job.kind == Kind::Attend).collect();
    html! { @if !jobs.is_empty() { section { @for job in &jobs { (parts::job(job)) } } } }
}

/// The last maps: a word under the pointer, or with the focus, shows its own.
fn maps(name: &Name, folder: &FilePath) -> Result<Markup> {
    let folder = folder.join(layout::ATTENTION);
    let Some(record) = Attention::read(&folder)? else { return Ok(html! {}) };
    // Files that are made anew have their old names.
    let made = std::fs::metadata(folder.join(layout::ATTENTION_RECORD)).and_then(|of| of.modified());
    let made = made.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default().as_millis();
    let url =
        |file: &FilePath| format!("/runs/{}/attention/{}?made={made}", name.url(), encoded(&file.to_string_lossy()));
    Ok(html! {
        section {
            h2 { "Maps" }
            div class="attention" {
                p class="words" { "Point at a word: "
                    @for (at, word) in record.words.iter().enumerate() { button type="button" data-word=(at) aria-pressed="false" { (word.word) } " " }
                }
                div class="tiles" {
                    @for row in &record.rows {
                        figure {
                            img src=(url(&row.image)) alt={ (record.arguments.prompt) ", " (row.title) };
                            @for (at, overlay) in row.overlays.iter().enumerate() {
                                img src=(url(&overlay.file)) alt={ "Where " (overlay.word) " acts, " (row.title) } data-word=(at) hidden;
                            }
                            figcaption { (row.title) @for (at, overlay) in row.overlays.iter().enumerate() { span data-word=(at) hidden { ": " (overlay.word) ", mean share " (format!("{:.3}", overlay.mean)) } } }
                        }
                    }
                }
            }
        }
    })
}

pub(crate) async fn attend(
    State(studio): State<Arc<Studio>>,
    Path(name): Path<Name>,
    Form(asked): Form<Attending>,
) -> Answer<Redirect> {
    let url = format!("/runs/{}/attention", name.url());
    blocking(move || -> Result<u64> {
        let run = studio.library.known_run(&name)?;
        let mut arguments =
            vec!["attend".to_owned(), format!("--run={}", run.display()), format!("--prompt={}", asked.prompt.trim())];
        arguments.extend(request::given(&[("seed", &asked.seed), ("steps", &asked.steps)]));
        if !asked.phases.is_empty() {
            arguments.push("--phases".to_owned());
        }
        request::check(&arguments)?;
        let title = format!("Attention of {name}: {}", terminal::shortened(&asked.prompt));
        studio.queue.add(Job::new(Kind::Attend, title, Some(name), arguments))
    })
    .await??;
    Ok(see(url))
}

pub(crate) async fn file(
    State(studio): State<Arc<Studio>>,
    Path((name, file)): Path<(Name, Name)>,
) -> Answer<Response> {
    run::file(studio, name, layout::ATTENTION, file.to_string()).await
}
