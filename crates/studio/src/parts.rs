//! Parts that several pages have.

use std::time::SystemTime;

use maud::{Markup, html};

use crate::answer::sentence;
use crate::jobs::{Job, Kind, State};
use crate::library::GalleryImage;
use crate::source::Source;
use crate::studio::Studio;

/// A labelled field of a form; `input` has the same `id`.
pub(crate) fn field(id: &str, label: &str, hint: &str, input: &Markup) -> Markup {
    html! {
        div class="field" {
            label for=(id) { (label) }
            (input)
            @if !hint.is_empty() { small id=(format!("{id}-hint")) { (hint) } }
        }
    }
}

/// A field with a number, empty for the default.
pub(crate) fn number(id: &str, label: &str, hint: &str, value: &str, step: &str) -> Markup {
    let input = html! { input id=(id) name=(id) type="number" inputmode="decimal" step=(step) value=(value) placeholder="default"; };
    field(id, label, hint, &input)
}

/// A field with a choice of values; their names are shown.
pub(crate) fn select(id: &str, label: &str, hint: &str, options: &[(String, String)], chosen: &str) -> Markup {
    let input = html! {
        select id=(id) name=(id) {
            @for (value, name) in options { option value=(value) selected[value == chosen] { (name) } }
        }
    };
    field(id, label, hint, &input)
}

/// What images can be generated with, as values of a choice and for people.
pub(crate) fn sources(studio: &Studio, all: bool) -> Vec<(String, String)> {
    let sources = studio.library.sources().into_iter();
    let usable = sources.filter(|source| match source {
        Source::Run(name) => all || studio.library.run(name).is_some_and(|folder| is_learned(&folder)),
        Source::Model(_) => true,
    });
    let shown = |source: &Source| match source {
        Source::Run(name) => format!("{name} (run)"),
        Source::Model(name) => format!("{name} (base model)"),
    };
    usable.map(|source| (source.to_string(), shown(&source))).collect()
}

/// Whether a run has ended, so that its model can be loaded.
pub(crate) fn is_learned(run: &std::path::Path) -> bool {
    run.join(runs::layout::CURVES).is_file()
}

/// A short text that stands out.
pub(crate) fn badge(word: &str) -> Markup {
    html! { span class={ "badge " (word) } { (word) } }
}

/// A bar with what is counted.
pub(crate) fn bar(label: &str, done: u64, total: u64) -> Markup {
    html! {
        progress value=(done) max=(total.max(1)) aria-label=(label) {}
    }
}

/// A job in a line, with what it is doing or why it has failed.
pub(crate) fn job(job: &Job) -> Markup {
    let (id, over) = (job.id, job.state.is_over());
    html! {
        div class="job" {
            div class="grow" {
                @match (job.kind, job.state) {
                    (Kind::Plan, _) => a href={ "/plans/" (id) } { (job.title) },
                    (Kind::Train, _) => @if let Some(run) = &job.run { a href={ "/runs/" (run.url()) } { (job.title) } },
                    _ => span { (job.title) },
                }
                " " (badge(word(job.state)))
                @if !job.said.is_empty() { p class="note" role=[(job.state == State::Failed).then_some("alert")] { (sentence(&job.said)) } }
                @if let Some(progress) = job.progress.as_ref().filter(|_| job.state == State::Running) {
                    div class="counted" {
                        (bar(&progress.task, progress.done, progress.total))
                        small { (progress.task) " " (progress.done) "/" (progress.total) }
                    }
                }
                @if let Some(jpeg) = &job.preview {
                    img class="preview" src={ "data:image/jpeg;base64," (jpeg) } alt={ "Preview of " (job.title) };
                }
            }
            div class="buttons" {
                @if job.kind == Kind::Train && job.state == State::Waiting { (button(&format!("/jobs/{id}/advance"), "Earlier", "")) }
                @if job.kind == Kind::Train && matches!(job.state, State::Waiting | State::Running) { (button(&format!("/jobs/{id}/pause"), "Pause", "")) }
                @if job.state == State::Paused { (button(&format!("/jobs/{id}/resume"), "Resume", "")) }
                (button(&format!("/jobs/{id}/stop"), if over { "Dismiss" } else { "Stop" }, ""))
            }
        }
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Running => "running",
        State::Paused => "paused",
        State::Done => "done",
        State::Failed => "failed",
    }
}

/// A button that does something.
pub(crate) fn button(url: &str, text: &str, class: &str) -> Markup {
    html! { form method="post" action=(url) { button type="submit" class=[(!class.is_empty()).then_some(class)] id=(url) { (text) } } }
}

/// An image that is shown large when asked.
pub(crate) fn figure(url: &str, alt: &str, caption: &Markup) -> Markup {
    html! {
        figure {
            button class="zoom" type="button" { img src=(url) alt=(alt) loading="lazy"; }
            figcaption { (caption) }
        }
    }
}

/// What is to be seen in a generated image.
pub(crate) fn alt(image: &GalleryImage) -> String {
    format!("{}, seed {}", terminal::shortened(&image.entry.prompt), image.entry.seed)
}

/// An image with a link to all that is known of it.
pub(crate) fn tile(image: &GalleryImage) -> Markup {
    html! {
        figure {
            a href={ (image.url()) "/about" } { img src=(image.url()) alt=(alt(image)) loading="lazy"; }
            figcaption { (terminal::shortened(&image.entry.prompt)) small { " " (image.source.name()) ", seed " (image.entry.seed) } }
        }
    }
}

/// `5 s`, `1 min 5 s`, `2 h 2 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// How long ago a time in seconds since 1970 is.
pub(crate) fn ago(time: f64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    match (now - time).max(0.0) {
        ..60.0 => "just now".to_owned(),
        seconds @ ..3600.0 => format!("{} min ago", (seconds / 60.0) as u64),
        seconds @ ..86400.0 => format!("{} h ago", (seconds / 3600.0) as u64),
        seconds => format!("{} days ago", (seconds / 86400.0) as u64),
    }
}
