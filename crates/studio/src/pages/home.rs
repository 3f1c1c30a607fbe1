//! The start: the queue and all runs.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};

use crate::answer::{Answer, Page, blocking, see, visible};
use crate::jobs::{self, Job, Kind};
use crate::live::Parts;
use crate::parts;
use crate::queue::Intent;
use crate::run_state::RunState;
use crate::studio::Studio;

/// Finished and failed jobs that are shown.
const RECENT: usize = 8;

pub(crate) async fn page(State(studio): State<Arc<Studio>>) -> Answer {
    let parts = blocking(move || (queue(&studio), runs(&studio))).await?;
    let body = html! {
        div id="queue" { (parts.0) }
        section { h2 { "Runs" } div id="runs" { (parts.1) } }
    };
    let lead = html! { p { a class="button main" href="/teach" { "Teach a subject" } " " a class="button" href="/generate" { "Generate images" } } };
    Ok(Page { title: "Runs".into(), here: "Runs", live: Some("/events".into()), lead, body })
}

/// What the page follows.
pub(crate) fn live(studio: &Studio) -> Parts {
    vec![("queue".into(), visible(queue(studio))), ("runs".into(), visible(runs(studio)))]
}

fn queue(studio: &Studio) -> Markup {
    let (active, recent): (Vec<Job>, Vec<Job>) =
        studio.queue.jobs(|jobs| jobs.all().to_vec()).into_iter().partition(|job| !job.state.is_over());
    let (first, trainings): (Vec<Job>, Vec<Job>) = active.into_iter().partition(|job| job.kind != Kind::Train);
    html! {
        @if !first.is_empty() || !trainings.is_empty() {
            section {
                h2 { "Queue" }
                @for job in first.iter().chain(&trainings) { (parts::job(job)) }
                p class="note" { "One job at a time on each device. A training gives way to the others, and goes on after them." }
            }
        }
        @let failed: Vec<&Job> = recent.iter().rev().filter(|job| job.state == jobs::State::Failed).take(RECENT).collect();
        @if !failed.is_empty() {
            section { h2 { "Failed" } @for job in failed { (parts::job(job)) } }
        }
    }
}

fn runs(studio: &Studio) -> Markup {
    let runs: Vec<_> = studio.library.runs().into_iter().map(|name| (RunState::of(studio, &name), name)).collect();
    html! {
        @if runs.is_empty() {
            p { "There is no run yet. " a href="/teach" { "Teach a subject" } " from three to six photos." }
        }
        ul class="cards" {
            @for (state, name) in &runs {
                li class="card" {
                    a href={ "/runs/" (name.url()) } {
                        @if studio.library.run(name).is_some_and(|folder| folder.join(runs::layout::CONTACT_SHEET).is_file()) {
                            img src={ "/runs/" (name.url()) "/sheet.png" } alt={ "Crops of the photos of " (name) } loading="lazy";
                        }
                        strong { (name) }
                    }
                    @match state {
                        Ok(state) => {
                            (parts::badge(state.doing.word()))
                            small { (state.config.method) ", " (state.config.category) ", " (state.done) " of " (state.steps) " steps" }
                            @if state.done < state.steps { (parts::bar("steps", state.done, state.steps)) }
                        }
                        Err(error) => small { (format!("{error:#}")) },
                    }
                }
            }
        }
    }
}

pub(crate) async fn pause(state: State<Arc<Studio>>, id: Path<u64>) -> Answer<Redirect> {
    end(state, id, Intent::Pause).await
}

pub(crate) async fn stop(state: State<Arc<Studio>>, id: Path<u64>) -> Answer<Redirect> {
    end(state, id, Intent::Stop).await
}

async fn end(State(studio): State<Arc<Studio>>, Path(id): Path<u64>, intent: Intent) -> Answer<Redirect> {
    blocking(move || {
        let over = studio.queue.jobs(|jobs| jobs.get(id).is_some_and(|job| job.state.is_over()));
        if over { studio.queue.dismiss(id) } else { studio.queue.end(id, intent) }
    })
    .await??;
    Ok(see("/"))
}

pub(crate) async fn resume(State(studio): State<Arc<Studio>>, Path(id): Path<u64>) -> Answer<Redirect> {
    blocking(move || {
        let run = studio.queue.jobs(|jobs| jobs.get(id).and_then(|job| job.run.clone()));
        run.map_or(Ok(()), |run| studio.queue.resume(&run))
    })
    .await??;
    Ok(see("/"))
}

pub(crate) async fn advance(State(studio): State<Arc<Studio>>, Path(id): Path<u64>) -> Answer<Redirect> {
    blocking(move || studio.queue.advance(id)).await??;
    Ok(see("/"))
}
