//! One run: how far it is, what it has learned, and what can be done with it.

use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::{Markup, PreEscaped, html};
use runs::{Entry, Sample, layout};

use super::deletion::{self, Target};
use super::exports;
use crate::answer::{Answer, Failure, Page, blocking, see, sentence, visible};
use crate::files;
use crate::folder::inside;
use crate::jobs::{Job, Kind};
use crate::live::Parts;
use crate::name::{Name, encoded};
use crate::parts::{self, bar, button, duration};
use crate::queue::Intent;
use crate::request;
use crate::run_state::{Doing, RunState};
use crate::source::Source;
use crate::studio::Studio;

/// Points of a plot, at most: more than a screen shows.
const POINTS: usize = 400;

pub(crate) async fn page(State(studio): State<Arc<Studio>>, Path(name): Path<Name>) -> Answer {
    blocking(move || body(&studio, &name)).await?
}

fn body(studio: &Studio, name: &Name) -> Answer {
    let [state, controls, losses, samples, sheet, uses] = content(studio, name)?;
    let body = html! {
        section { div id="state" { (state) } div id="controls" { (controls) } }
        section { h2 { "Losses" } div id="losses" { (losses) } }
        div id="samples" { (samples) }
        div id="sheet" { (sheet) }
        div id="use" { (uses) }
    };
    let live = Some(format!("/runs/{}/events", name.url()));
    Ok(Page { title: name.to_string(), here: "Runs", live, lead: html! {}, body })
}

/// What the page follows.
pub(crate) fn live(studio: &Studio, name: &Name) -> Parts {
    let names = ["state", "controls", "losses", "samples", "sheet", "use"];
    match content(studio, name) {
        Ok(content) => names.into_iter().zip(content).map(|(id, part)| (id.to_owned(), visible(part))).collect(),
        Err(Failure { said, .. }) => vec![("state".into(), visible(html! { p role="alert" { (sentence(&said)) } }))],
    }
}

/// The parts of the page: state, buttons, losses, samples, contact sheet, uses. Of a run that waits for its beginning there is its job
/// alone.
fn content(studio: &Studio, name: &Name) -> Answer<[Markup; 6]> {
    let Some(folder) = studio.library.run(name) else {
        let job = studio.queue.jobs(|jobs| jobs.last_training(name).cloned());
        let job = job.ok_or_else(|| Failure::not_found(format!("there is no run {:?}", name.as_str())))?;
        let mut parts = [(); 6].map(|()| html! {});
        parts[0] = parts::job(&job);
        return Ok(parts);
    };
    let state = RunState::of(studio, name)?;
    let (losses, samples) = (losses(studio, &folder)?, samples(name, &folder)?);
    Ok([status(&state), controls(&state), losses, samples, crops(name, &folder), uses(studio, &state, &folder)])
}

fn crops(name: &Name, folder: &FilePath) -> Markup {
    let caption = html! { "What the model sees: the first augmented crops of the photos." };
    html! {
        @if folder.join(layout::CONTACT_SHEET).is_file() {
            section {
                h2 { "Contact sheet" }
                (parts::figure(&format!("/runs/{}/sheet.png", name.url()), "The first augmented crops of the photos", &caption))
            }
        }
    }
}

fn status(state: &RunState) -> Markup {
    let said =
        state.job.as_ref().filter(|_| state.doing != Doing::Training).map(|job| job.said.as_str()).unwrap_or_default();
    let config = &state.config;
    let model = config.model.file_name().unwrap_or_default().to_string_lossy();
    html! {
        p class="kicker" { (config.method) " · class noun " b { (config.category) } " · base model " (model) }
        p { (parts::badge(state.doing.word())) " " span class="grow" {
            (state.done) " of " (state.steps) " steps"
            @if !state.phase.is_empty() { ", phase " (state.phase.replace('_', " ")) }
            @if let Some(left) = state.left { ", about " (duration(left)) " left" }
        } }
        (bar("steps", state.done, state.steps))
        @if let Some(beside) = state.beside() { p class="note" { (beside.task) ": " (beside.done) " of " (beside.total) } }
        @if !said.is_empty() { p role="alert" { (sentence(said)) } }
        @for note in state.job.iter().flat_map(|job| &job.notes) { p class="note" { (sentence(note)) } }
    }
}

/// The buttons, in a part of its own: it changes rarely, and keeps the focus of the keyboard.
fn controls(state: &RunState) -> Markup {
    let url = state.name.url();
    let queued = state.job.as_ref().is_some_and(|job| !job.state.is_over());
    html! {
        div class="buttons" {
            @match state.doing {
                Doing::Training | Doing::Waiting if queued => {
                    (button(&format!("/runs/{url}/pause"), "Pause", ""))
                    (button(&format!("/runs/{url}/stop"), "Stop", ""))
                }
                Doing::Training => span class="note" { "This run was started elsewhere, and is stopped there." },
                Doing::Waiting => {},
                Doing::Paused => {
                    (button(&format!("/runs/{url}/resume"), "Resume", "main"))
                    (button(&format!("/runs/{url}/stop"), "Take out of the queue", ""))
                }
                Doing::Failed | Doing::Interrupted => (button(&format!("/runs/{url}/resume"), "Resume", "main")),
                Doing::Finished => {},
            }
        }
    }
}

/// The curves so far.
fn losses(studio: &Studio, folder: &FilePath) -> Result<Markup> {
    let plots = studio.library.log(folder, |log| runs::curves(&thinned(log)))?;
    Ok(html! {
        @if plots.is_empty() { p class="note" { "They appear with the first steps." } }
        @for plot in &plots {
            figure class="plot" {
                div class="wide" { (PreEscaped(plot.svg(1000, 320))) }
                div class="narrow" { (PreEscaped(plot.svg(380, 290))) }
                p class="reading" aria-live="polite" {}
            }
        }
    })
}

/// A long log with fewer entries, each the mean of its neighbours of a phase.
fn thinned(log: &[Entry]) -> Vec<Entry> {
    let together = log.len().div_ceil(POINTS).max(1);
    let of_phase = log.chunk_by(|a, b| a.phase == b.phase).flat_map(|phase| phase.chunks(together));
    let mean = |entries: &[Entry]| {
        let mut mean = entries[entries.len() - 1].clone();
        for (name, value) in &mut mean.values {
            let values = entries.iter().filter_map(|entry| entry.values.get(name));
            let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
            *value = sum / f64::from(count);
        }
        mean
    };
    of_phase.map(mean).collect()
}

fn samples(name: &Name, folder: &FilePath) -> Result<Markup> {
    let samples = runs::samples(folder)?;
    let when = |sample: &Sample| match &sample.time {
        Some(time) => format!("phase {}, {}, step {}", time.number, time.phase.replace('_', " "), time.step),
        None => "at the end".to_owned(),
    };
    let url = |path: &FilePath| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        format!("/runs/{}/samples/{}", name.url(), encoded(&file))
    };
    let figure = |sample: &Sample| {
        html! {
            (parts::figure(&url(&sample.path), &format!("Samples of {name}, {}", when(sample)), &html! { (when(sample)) }))
            @if let Some(map) = &sample.attention {
                (parts::figure(&url(map), &format!("Where [V] acts, {}", when(sample)), &html! { "Where [V] and the class noun act, with their share of the attention" }))
            }
        }
    };
    Ok(html! {
        @if let Some((last, earlier)) = samples.split_last() {
            section {
                h2 { "Samples" }
                (figure(last))
                @if !earlier.is_empty() {
                    details { summary { "Earlier ones" } @for sample in earlier.iter().rev() { (figure(sample)) } }
                }
            }
        }
    })
}

/// What can be done with a run, most of it when it is finished.
fn uses(studio: &Studio, state: &RunState, folder: &FilePath) -> Markup {
    let url = state.name.url();
    let jobs = jobs_of(studio, &state.name);
    html! {
        @if !jobs.is_empty() { section { h2 { "Jobs" } @for job in &jobs { (parts::job(job)) } } }
        @if parts::is_learned(folder) {
            section {
                h2 { "Use it" }
                p class="buttons" {
                    a class="button main" href={ "/generate?source=" (encoded(&Source::Run(state.name.clone()).to_string())) "&prompt=" (encoded(&format!("a [V] {} on the beach", state.config.category))) } { "Generate images" }
                    a class="button" href={ "/runs/" (url) "/attention" } { "Attention maps" }
                    a class="button" href={ "/gallery?source=" (encoded(&Source::Run(state.name.clone()).to_string())) } { "Images" }
                    a class="button" href={ "/runs/" (url) "/report" } { "Report" }
                }
                (button(&format!("/runs/{url}/scores"), "Score it with CLIP", ""))
                p class="note" { "The scores are in the report when they are there." }
            }
            (exports::section(studio, &state.name))
        }
        p class="buttons" { (deletion::link(&Target::Run(state.name.clone()))) }
    }
}

pub(super) fn jobs_of(studio: &Studio, run: &Name) -> Vec<Job> {
    let shown = |job: &&Job| {
        job.run.as_ref() == Some(run)
            && !matches!(job.kind, Kind::Train | Kind::Plan)
            && job.state != crate::jobs::State::Done
    };
    studio.queue.jobs(|jobs| jobs.all().iter().filter(shown).cloned().collect())
}

pub(crate) async fn pause(state: State<Arc<Studio>>, name: Path<Name>) -> Answer<Redirect> {
    end(state, name, Intent::Pause).await
}

pub(crate) async fn stop(state: State<Arc<Studio>>, name: Path<Name>) -> Answer<Redirect> {
    end(state, name, Intent::Stop).await
}

async fn end(State(studio): State<Arc<Studio>>, Path(name): Path<Name>, intent: Intent) -> Answer<Redirect> {
    let url = format!("/runs/{}", name.url());
    let there = blocking(move || -> Result<bool> {
        let id = studio.queue.jobs(|jobs| jobs.training(&name).map(|job| job.id));
        studio.queue.end(id.context("this run is not in the queue")?, intent)?;
        Ok(studio.library.run(&name).is_some())
    })
    .await??;
    // One that has not begun leaves nothing.
    Ok(see(if there { &url } else { "/" }))
}

pub(crate) async fn resume(State(studio): State<Arc<Studio>>, Path(name): Path<Name>) -> Answer<Redirect> {
    let url = format!("/runs/{}", name.url());
    blocking(move || {
        studio.library.known_run(&name)?;
        studio.queue.resume(&name)
    })
    .await??;
    Ok(see(url))
}

pub(crate) async fn sheet(State(studio): State<Arc<Studio>>, Path(name): Path<Name>) -> Answer<Response> {
    file(studio, name, "", layout::CONTACT_SHEET.to_owned()).await
}

pub(crate) async fn sample(
    State(studio): State<Arc<Studio>>,
    Path((name, file)): Path<(Name, Name)>,
) -> Answer<Response> {
    let folder = if file.as_str() == layout::SAMPLES { "" } else { layout::VALIDATION };
    self::file(studio, name, folder, file.to_string()).await
}

/// An image in a run's folder.
pub(super) async fn file(studio: Arc<Studio>, name: Name, folder: &'static str, file: String) -> Answer<Response> {
    let image = move || files::image(&inside(&studio.library.known_run(&name)?.join(folder), &file)?);
    blocking(image).await?.map_err(Failure::not_found)
}

/// The run's report as it is now. Nothing in it may do more than show itself.
pub(crate) async fn report(State(studio): State<Arc<Studio>>, Path(name): Path<Name>) -> Answer<Response> {
    let page = blocking(move || report::run_page(&studio.library.known_run(&name)?)).await??;
    Ok((files::ALONE, Html(page)).into_response())
}

pub(crate) async fn scores(State(studio): State<Arc<Studio>>, Path(name): Path<Name>) -> Answer<Redirect> {
    let url = format!("/runs/{}", name.url());
    blocking(move || -> Result<u64> {
        let folder = studio.library.known_run(&name)?;
        let set = RunState::of(&studio, &name)?.config.validation.results;
        let mut arguments =
            vec!["evaluate".to_owned(), format!("--run={}", folder.display()), "--base".into(), "--images=2".into()];
        if set != requests::NO_RESULTS {
            arguments.push(format!("--prompts={set}"));
        }
        request::check(&arguments)?;
        studio.queue.add(Job::new(Kind::Evaluate, format!("Score {name}"), Some(name), arguments))
    })
    .await??;
    Ok(see(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_thinned_by_means_within_phases() {
        let entry = |step: u64, phase: &str| Entry {
            step,
            phase: phase.to_owned(),
            wall_time: 0.0,
            values: [("loss".to_owned(), step as f64)].into(),
        };
        let log: Vec<Entry> = (1..=1000).map(|step| entry(step, if step <= 500 { "a" } else { "b" })).collect();
        let thin = thinned(&log);
        // Three at a time: 167 of each phase.
        assert_eq!(thin.len(), 334);
        assert_eq!((thin[0].step, thin[0].values["loss"]), (3, 2.0));
        assert_eq!((thin[166].step, thin[166].values["loss"], thin[166].phase.as_str()), (500, 499.5, "a"));
        assert_eq!(thinned(&log[..10]), log[..10]);
    }
}
