//! Teaching a subject: a configuration for photos, and the start.

use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::extract::{Form, Query, State};
use axum::response::Redirect;
use maud::{Markup, html};
use photos::{Options, PhotoFolder};
use serde::{Deserialize, Serialize};

use super::photos::{Beside, upload};
use crate::answer::{Answer, Page, blocking, see, sentence};
use crate::jobs::{Job, Kind};
use crate::name::Name;
use crate::parts::{field, number, select};
use crate::request;
use crate::studio::Studio;

/// Steps between images that are looked at, where nobody says otherwise: they cost a few per cent of the time.
const EVERY: &str = "50";

/// What is chosen on the page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Teaching {
    photos: String,
    name: String,
    category: String,
    model: String,
    method: String,
    preset: String,
    /// Of the last phase.
    steps: String,
    batch_size: String,
    resolution: String,
    seed: String,
    dtype: String,
    gradient_checkpointing: String,
    validate_every: String,
    /// Attention maps of [V] with them.
    attention: String,
    /// Captions and masks beside the photos count.
    captions: String,
    masks: String,
    /// Single values of the configuration, a line each.
    set: String,
}

impl Teaching {
    /// The command line. Only names come from the page; what they mean is decided here.
    pub(super) fn arguments(&self, studio: &Studio, name: &Name) -> Result<Vec<String>> {
        let library = &studio.library;
        let photos = library.photos(&self.photos.parse().context("choose photos")?)?;
        let model = library.model(&self.model.parse().context("choose a model")?)?;
        ensure!(!self.category.trim().is_empty(), "say what the subject is, as a noun: dog");
        let path = |path: &FilePath| path.display().to_string();
        let mut arguments = vec![
            "train".to_owned(),
            format!("--out={}", path(&library.folder().join(name.as_str()))),
            format!("--concept={}", path(&photos)),
            format!("--model={}", path(&model.path)),
            format!("--category={}", self.category.trim()),
        ];
        let given = [
            ("method", &self.method),
            ("preset", &self.preset),
            ("steps", &self.steps),
            ("batch-size", &self.batch_size),
            ("resolution", &self.resolution),
            ("seed", &self.seed),
            ("dtype", &self.dtype),
            ("validate-every", &self.validate_every),
        ];
        arguments.extend(request::given(&given));
        let switches = [
            ("--gradient-checkpointing", &self.gradient_checkpointing),
            ("--captions", &self.captions),
            ("--masks", &self.masks),
            ("--set=validation.attention=true", &self.attention),
        ];
        arguments.extend(switches.iter().filter(|(_, on)| !on.is_empty()).map(|(switch, _)| (*switch).to_owned()));
        for value in self.set.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let path = value.split('=').next().unwrap_or_default().trim();
            // What is a path of the file system is chosen by name above, or not at all.
            let first = path.split('.').next().unwrap_or_default();
            ensure!(
                [
                    "phases",
                    "regularizer",
                    "augmentation",
                    "adapter",
                    "validation",
                    "optimizer",
                    "checkpoint_every",
                    "buckets",
                    "placeholder",
                    "initial_word",
                    "prompt"
                ]
                .contains(&first)
                    && value.contains('=')
                    && !value.contains('/'),
                "{value:?} cannot be set here: give NAME=VALUE of phases, regularizer, augmentation, adapter, validation or optimizer"
            );
            arguments.push(format!("--set={value}"));
        }
        request::check(&arguments)?;
        Ok(arguments)
    }

    /// The name of the run: as given, or after the photos, the first that is free.
    pub(super) fn run(&self, studio: &Studio) -> Result<Name> {
        if !self.name.trim().is_empty() {
            return self.name.trim().parse();
        }
        let photos: Name = self.photos.parse().context("choose photos")?;
        let names = std::iter::once(photos.to_string()).chain((2..).map(|number| format!("{photos}-{number}")));
        let is_free = |name: &Name| {
            let queued = studio.queue.jobs(|jobs| jobs.training(name).is_some());
            !queued && studio.library.new_run(name).is_ok()
        };
        names.filter_map(|name| name.parse().ok()).find(is_free).context("choose a name for the run")
    }
}

pub(crate) async fn page(State(studio): State<Arc<Studio>>, Query(asked): Query<Teaching>) -> Answer {
    let body = blocking(move || if asked.photos.is_empty() { Ok(upload(&studio)) } else { configure(&studio, &asked) })
        .await??;
    let lead = html! { p { "Three to six photos of one subject, then a word for what it is." } };
    Ok(Page { title: "Teach a subject".into(), here: "Teach", live: None, lead, body })
}

/// The photos, and all that is to be chosen.
fn configure(studio: &Studio, asked: &Teaching) -> Result<Markup> {
    let set: Name = asked.photos.parse()?;
    let folder = studio.library.photos(&set)?;
    let PhotoFolder { photos, notes, .. } =
        PhotoFolder::open_with(&folder, &Options { max_short_side: Some(256), ..Options::default() })?;
    let beside = Beside::of(&folder);
    let every = if asked.validate_every.is_empty() { EVERY } else { &asked.validate_every };
    // The switches say it.
    let used = !beside.captions.is_empty() || beside.masks > 0;
    let unused = |note: &&String| !used || !["captions (", "masks ("].iter().any(|start| note.starts_with(start));
    let switch = |id: &str, label: &str, on: bool| {
        html! {
            div class="field check" {
                input id=(id) name=(id) type="checkbox" value="1" checked[on];
                label for=(id) { (label) }
            }
        }
    };
    let named = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect::<Vec<_>>();
    let or_default = |names: &[&str], default: &str| {
        let mut all = vec![(String::new(), default.to_owned())];
        all.extend(named(names));
        all
    };
    let models: Vec<_> = studio.library.models().iter().map(|model| model.name.as_str()).collect();
    let method = if asked.method.is_empty() { "attndreambooth" } else { &asked.method };
    Ok(html! {
        section {
            h2 { "Photos of " (set) }
            div class="tiles small" {
                @for photo in &photos {
                    @let name = photo.name();
                    img src={ "/photos/" (set.url()) "/thumbnails/" (crate::name::encoded(&name)) } alt={ "Photo " (name) };
                }
            }
            @if !beside.captions.is_empty() {
                details {
                    summary { "Captions" }
                    ul { @for (photo, caption) in photos.iter().zip(&beside.captions) { li { b { (photo.name()) } ": " (caption) } } }
                }
            }
            @for note in notes.iter().filter(unused).chain(&beside.notes) { p class="note" { (sentence(note)) } }
        }
        section {
            h2 { "What to learn" }
            @if models.is_empty() {
                p role="alert" { "There is no base model: start the studio with --model, or fetch one with " code { "attndreambooth weights download" } "." }
            }
            form method="post" action="/plans" class="form" id="teaching" {
                input type="hidden" name="photos" value=(set);
                (field("category", "Class noun", "What the subject is, in one word: dog", &html! { input id="category" name="category" value=(asked.category) required maxlength="60" autocomplete="off" aria-describedby="category-hint"; }))
                (select("model", "Base model", "", &named(&models), &asked.model))
                (select("method", "Method", "How it is learned", &named(&requests::METHODS), method))
                (select("preset", "Preset", "Of attndreambooth; by default the model's own, else the paper's", &or_default(&["paper", "fast"], "default"), &asked.preset))
                @if !beside.captions.is_empty() { (switch("captions", "Learn each photo with its caption", !asked.captions.is_empty())) }
                @if beside.masks > 0 { (switch("masks", &format!("Let the loss count under the masks ({} of {} photos)", beside.masks, photos.len()), !asked.masks.is_empty())) }
                (field("name", "Name of the run", "Empty: after the photos", &html! { input id="name" name="name" value=(asked.name) maxlength="60" autocomplete="off" placeholder=(set); }))
                details class="wide" {
                    summary { "More options" }
                    div class="form" {
                        (number("steps", "Steps of the last phase", "", &asked.steps, "1"))
                        (number("batch_size", "Batch size", "", &asked.batch_size, "1"))
                        (number("resolution", "Resolution", "Pixels", &asked.resolution, "8"))
                        (number("seed", "Seed", "-1 for a random one", &asked.seed, "1"))
                        (number("validate_every", "Images every N steps", "0 for none", every, "1"))
                        (select("dtype", "Precision", "", &or_default(&["fp32", "tf32", "bf16"], "default"), &asked.dtype))
                        (switch("attention", "With an attention map of [V]", !asked.attention.is_empty() || asked.validate_every.is_empty()))
                        (switch("gradient_checkpointing", "Gradient checkpointing (less memory, slower)", !asked.gradient_checkpointing.is_empty()))
                        div class="wide" { (field("set", "Single values", "Lines such as phases.unet.learning_rate=1e-6", &html! { textarea id="set" name="set" rows="3" spellcheck="false" { (asked.set) } })) }
                    }
                }
                div class="buttons wide" {
                    button class="main" type="submit" { "Check" }
                    button type="submit" formaction="/runs" { "Start without a check" }
                    span class="note" { "The check shows the crops, the time and the memory to expect." }
                }
            }
        }
    })
}

/// Starts a run without more ado.
pub(crate) async fn start(State(studio): State<Arc<Studio>>, Form(asked): Form<Teaching>) -> Answer<Redirect> {
    let run = blocking(move || -> Result<Name> {
        let run = asked.run(&studio)?;
        let arguments = asked.arguments(&studio, &run)?;
        enqueue(&studio, &run, arguments)?;
        Ok(run)
    })
    .await??;
    Ok(see(format!("/runs/{}", run.url())))
}

/// Puts a new run into the queue.
pub(super) fn enqueue(studio: &Studio, run: &Name, arguments: Vec<String>) -> Result<u64> {
    studio.library.new_run(run)?;
    studio.queue.add_training(Job::new(Kind::Train, format!("Train {run}"), Some(run.clone()), arguments))
}
