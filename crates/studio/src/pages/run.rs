//! One run: how far it is, what it has learned, and what can be done with it.

use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::extract::{Form, Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::{Markup, PreEscaped, html};
use runs::{Attention, Entry, Sample, layout};
use serde::Deserialize;

use crate::answer::{Answer, Failure, Page, blocking, see, sentence, visible};
use crate::files;
use crate::jobs::{Job, Kind};
use crate::library::{self, Source};
use crate::live::Parts;
use crate::name::{Name, encoded};
use crate::parts::{self, bar, button, duration, field, number};
use crate::request;
use crate::run_state::{Doing, RunState};
use crate::studio::Studio;
use crate::workers::Intent;

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
        let job = studio.workers.jobs(|jobs| jobs.last_training(name).cloned());
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
    let url = |sample: &Sample| {
        let file = sample.path.file_name().unwrap_or_default().to_string_lossy();
        format!("/runs/{}/samples/{}", name.url(), encoded(&file))
    };
    let figure = |sample: &Sample| {
        parts::figure(&url(sample), &format!("Samples of {name}, {}", when(sample)), &html! { (when(sample)) })
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

/// The formats that a run is exported in: a word for the address, for people, the file's name, and the program's options.
const EXPORTS: [(&str, &str, &str, &[&str]); 4] = [
    ("diffusers", "Folder for diffusers", "", &["--format=diffusers"]),
    ("single-file", "Single file (A1111, ComfyUI)", ".safetensors", &["--format=single-file", "--dtype=fp16"]),
    ("lora", "LoRA", "-lora.safetensors", &["--format=lora", "--dtype=fp16"]),
    ("embedding", "Embedding", "-embedding-only.safetensors", &["--format=embedding"]),
];

/// What can be done with a finished run.
fn uses(studio: &Studio, state: &RunState, folder: &FilePath) -> Markup {
    let url = state.name.url();
    let jobs = jobs_of(studio, &state.name);
    let exported = library::names(&studio.library.exports(&state.name));
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
            section {
                h2 { "For other programs" }
                div class="buttons" { @for (format, name, ..) in EXPORTS { (button(&format!("/runs/{url}/exports/{format}"), name, "")) } }
                @if !exported.is_empty() {
                    h3 { "Downloads" }
                    ul { @for file in &exported {
                        li { a href={ "/runs/" (url) "/exports/" (file.url()) } download { (file) @if studio.library.exports(&state.name).join(file.as_str()).is_dir() { ".tar" } } }
                    } }
                }
            }
        }
    }
}

fn jobs_of(studio: &Studio, run: &Name) -> Vec<Job> {
    let shown = |job: &&Job| {
        job.run.as_ref() == Some(run)
            && !matches!(job.kind, Kind::Train | Kind::Plan)
            && job.state != crate::jobs::State::Done
    };
    studio.workers.jobs(|jobs| jobs.all().iter().filter(shown).cloned().collect())
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
        let id = studio.workers.jobs(|jobs| jobs.training(&name).map(|job| job.id));
        studio.workers.end(id.context("this run is not in the queue")?, intent)?;
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
        studio.workers.resume(&name)
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

pub(crate) async fn attention_file(
    State(studio): State<Arc<Studio>>,
    Path((name, file)): Path<(Name, Name)>,
) -> Answer<Response> {
    self::file(studio, name, layout::ATTENTION, file.to_string()).await
}

/// An image in a run's folder.
async fn file(studio: Arc<Studio>, name: Name, folder: &'static str, file: String) -> Answer<Response> {
    let image = move || files::image(&library::inside(&studio.library.known_run(&name)?.join(folder), &file)?);
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
        studio.workers.add(Job::new(Kind::Evaluate, format!("Score {name}"), Some(name), arguments))
    })
    .await??;
    Ok(see(url))
}

pub(crate) async fn export(
    State(studio): State<Arc<Studio>>,
    Path((name, format)): Path<(Name, String)>,
) -> Answer<Redirect> {
    let url = format!("/runs/{}", name.url());
    blocking(move || -> Result<()> {
        let run = studio.library.known_run(&name)?;
        let (_, _, ending, options) =
            EXPORTS.into_iter().find(|(known, ..)| *known == format).context("there is no such format")?;
        let folder = studio.library.exports(&name);
        std::fs::create_dir_all(&folder).context("the file cannot be written")?;
        let out = folder.join(format!("{name}{ending}"));
        ensure!(
            !out.exists(),
            "{} is there already: download it",
            out.file_name().unwrap_or_default().to_string_lossy()
        );
        let mut arguments =
            vec!["export".to_owned(), format!("--run={}", run.display()), format!("--out={}", out.display())];
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        request::check(&arguments)?;
        studio.workers.add(Job::new(Kind::Export, format!("Export {name} ({format})"), Some(name), arguments))?;
        Ok(())
    })
    .await??;
    Ok(see(url))
}

pub(crate) async fn download(
    State(studio): State<Arc<Studio>>,
    Path((name, file)): Path<(Name, Name)>,
) -> Answer<Response> {
    let path = studio.library.exports(&name).join(file.as_str());
    blocking(move || files::download(&path, file.as_str())).await?.map_err(Failure::not_found)
}

/// What is asked for on the page of attention maps.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Attending {
    prompt: String,
    seed: String,
    steps: String,
    phases: String,
}

pub(crate) async fn attention(State(studio): State<Arc<Studio>>, Path(name): Path<Name>) -> Answer {
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
pub(crate) fn live_attention(studio: &Studio, name: &Name) -> Parts {
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
        studio.workers.add(Job::new(Kind::Attend, title, Some(name), arguments))
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
