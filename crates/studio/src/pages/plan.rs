//! What a run would take, and its start.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::teach::{Teaching, enqueue};
use crate::answer::{Answer, Failure, Page, blocking, see, sentence, visible};
use crate::files;
use crate::jobs::{Job, Kind, State as JobState};
use crate::live::Parts;
use crate::parts::{self, duration};
use crate::studio::Studio;

/// Finds out what a run would take.
pub(crate) async fn check(State(studio): State<Arc<Studio>>, Form(asked): Form<Teaching>) -> Answer<Redirect> {
    let id = blocking(move || -> Result<u64> {
        let run = asked.run(&studio)?;
        studio.library.new_run(&run)?;
        let mut arguments = asked.arguments(&studio, &run)?;
        let sheet = tempfile::Builder::new()
            .prefix("")
            .suffix(".png")
            .rand_bytes(12)
            .tempfile_in(studio.library.own("plans"))?;
        arguments.extend(["--dry-run".to_owned(), format!("--contact-sheet={}", sheet.path().display())]);
        drop(sheet);
        studio.queue.add(Job::new(Kind::Plan, format!("Check {run}"), Some(run), arguments))
    })
    .await??;
    Ok(see(format!("/plans/{id}")))
}

pub(crate) async fn page(State(studio): State<Arc<Studio>>, Path(id): Path<u64>) -> Answer {
    let job = plan_of(&studio, id)?;
    let body = html! { div id="plan" { (plan_body(&job)) } };
    let title = format!("Check of {}", job.run.map_or(String::new(), |run| run.to_string()));
    Ok(Page { title, here: "Teach", live: Some(format!("/plans/{id}/events")), lead: html! {}, body })
}

fn plan_of(studio: &Studio, id: u64) -> Answer<Job> {
    let job = studio.queue.jobs(|jobs| jobs.get(id).cloned()).filter(|job| job.kind == Kind::Plan);
    job.ok_or_else(|| Failure::not_found("there is no such check any more"))
}

/// What the page of a plan follows.
pub(crate) fn live(studio: &Studio, id: u64) -> Parts {
    let job = plan_of(studio, id);
    job.map(|job| vec![("plan".to_owned(), visible(plan_body(&job)))]).unwrap_or_default()
}

/// What `train --dry-run` gives.
#[derive(Debug, Deserialize)]
struct Planned {
    phases: Vec<PlannedPhase>,
    seconds: f64,
    peak_memory: u64,
    disk: u64,
}

#[derive(Debug, Deserialize)]
struct PlannedPhase {
    phase: String,
    steps: u64,
    seconds_per_step: f64,
}

fn plan_body(job: &Job) -> Markup {
    let planned: Option<Planned> = job.result.clone().and_then(|result| serde_json::from_value(result).ok());
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    html! {
        @if job.state != JobState::Done { section { h2 { "Check" } (parts::job(job)) } }
        @for note in &job.notes { p class="note" { (sentence(note)) } }
        @if let Some(planned) = planned {
            section {
                h2 { "What it takes" }
                dl class="facts" {
                    div { dt { "time in steps" } dd { (duration(planned.seconds)) } }
                    div { dt { "memory" } dd { (gigabytes(planned.peak_memory)) } }
                    div { dt { "disk" } dd { (gigabytes(planned.disk)) } }
                }
                div class="scroll" tabindex="0" { table {
                    thead { tr { th scope="col" { "phase" } th scope="col" { "steps" } th scope="col" { "seconds a step" } } }
                    tbody { @for phase in &planned.phases { tr {
                        th scope="row" { (phase.phase.replace('_', " ")) } td { (phase.steps) } td { (format!("{:.2}", phase.seconds_per_step)) }
                    } } }
                } }
                form method="post" action={ "/plans/" (job.id) "/start" } { button class="main" type="submit" id="start" { "Start" } }
            }
            section {
                h2 { "What the model will see" }
                (parts::figure(&format!("/plans/{}/sheet.png", job.id), "The first augmented crops of the photos", &html! { "The first augmented crops." }))
            }
        }
    }
}

/// The file that the plan's crops are in.
fn sheet_file(job: &Job) -> Option<PathBuf> {
    job.arguments.iter().find_map(|argument| argument.strip_prefix("--contact-sheet=")).map(PathBuf::from)
}

pub(crate) async fn sheet(State(studio): State<Arc<Studio>>, Path(id): Path<u64>) -> Answer<Response> {
    let path = sheet_file(&plan_of(&studio, id)?).ok_or_else(|| Failure::not_found("there are no crops"))?;
    blocking(move || files::image(&path)).await?.map_err(Failure::not_found)
}

/// Starts what was checked.
pub(crate) async fn start(State(studio): State<Arc<Studio>>, Path(id): Path<u64>) -> Answer<Response> {
    let job = plan_of(&studio, id)?;
    let run = job.run.clone().ok_or_else(|| Failure::not_found("this check is of no run"))?;
    let url = format!("/runs/{}", run.url());
    let arguments =
        job.arguments.iter().filter(|argument| *argument != "--dry-run" && !argument.starts_with("--contact-sheet="));
    let arguments = arguments.cloned().collect();
    blocking(move || enqueue(&studio, &run, arguments)).await??;
    Ok(see(url).into_response())
}
