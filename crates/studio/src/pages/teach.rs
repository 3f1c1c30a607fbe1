//! Teaching a subject: photos, a configuration, what it would take, and the start.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::extract::multipart::{Field, Multipart};
use axum::extract::{Form, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use photos::{Options, PhotoFolder};
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Failure, Page, blocking, see, sentence, visible};
use crate::files;
use crate::jobs::{Job, Kind, State as JobState};
use crate::library;
use crate::live::Parts;
use crate::name::Name;
use crate::parts::{self, duration, field, number, select};
use crate::request;
use crate::studio::Studio;

/// The most photos that are taken at once, and the most bytes of each.
const MOST_PHOTOS: usize = 50;
const MOST_BYTES: u64 = 50 << 20;
/// The most bytes of a whole upload.
pub(crate) const MOST_UPLOAD: usize = 1 << 30;

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
    /// Single values of the configuration, a line each.
    set: String,
}

impl Teaching {
    /// The command line. Only names come from the page; what they mean is decided here.
    fn arguments(&self, studio: &Studio, name: &Name) -> Result<Vec<String>> {
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
        if !self.gradient_checkpointing.is_empty() {
            arguments.push("--gradient-checkpointing".to_owned());
        }
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
    fn run(&self, studio: &Studio) -> Result<Name> {
        if !self.name.trim().is_empty() {
            return self.name.trim().parse();
        }
        let photos: Name = self.photos.parse().context("choose photos")?;
        let names = std::iter::once(photos.to_string()).chain((2..).map(|number| format!("{photos}-{number}")));
        let is_free = |name: &Name| {
            let queued = studio.workers.jobs(|jobs| jobs.training(name).is_some());
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

/// Choosing or uploading photos.
fn upload(studio: &Studio) -> Markup {
    let sets = studio.library.photo_sets();
    html! {
        section {
            h2 { "Photos" }
            form method="post" action="/photos" enctype="multipart/form-data" id="upload" data-most=(MOST_BYTES) {
                (field("set", "Name of the subject", "Such as my-dog", &html! { input id="set" name="set" required maxlength="60" autocomplete="off"; }))
                label class="drop" for="files" {
                    strong { "Drop photos here, or choose them" }
                    span class="note" id="chosen" aria-live="polite" { "JPEG, PNG, WebP, BMP, GIF or TIFF, up to 50 MB each" }
                    input id="files" name="photos" type="file" multiple required accept="image/*,.tif,.tiff";
                }
                div id="chosen-photos" class="tiles small" {}
                button class="main" type="submit" { "Upload" }
                progress id="uploading" hidden value="0" max="1" aria-label="Upload" {}
            }
        }
        @if !sets.is_empty() {
            section {
                h2 { "Photos that are here" }
                ul class="cards" {
                    @for set in &sets {
                        li class="card" {
                            a href={ "/teach?photos=" (set.url()) } {
                                img src={ "/photos/" (set.url()) "/first.jpg" } alt={ "A photo of " (set) } loading="lazy";
                                strong { (set) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The photos, and all that is to be chosen.
fn configure(studio: &Studio, asked: &Teaching) -> Result<Markup> {
    let set: Name = asked.photos.parse()?;
    let folder = studio.library.photos(&set)?;
    let PhotoFolder { photos, notes, .. } =
        PhotoFolder::open_with(&folder, &Options { max_short_side: Some(256), ..Options::default() })?;
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
            @for note in &notes { p class="note" { (sentence(note)) } }
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
                (select("preset", "Preset", "Of the method attndreambooth", &or_default(&["paper", "fast"], "the model's own, or the paper's"), &asked.preset))
                (field("name", "Name of the run", "Empty: after the photos", &html! { input id="name" name="name" value=(asked.name) maxlength="60" autocomplete="off" placeholder=(set); }))
                details class="wide" {
                    summary { "More options" }
                    div class="form" {
                        (number("steps", "Steps of the last phase", "", &asked.steps, "1"))
                        (number("batch_size", "Batch size", "", &asked.batch_size, "1"))
                        (number("resolution", "Resolution", "Pixels", &asked.resolution, "8"))
                        (number("seed", "Seed", "-1 for a random one", &asked.seed, "1"))
                        (number("validate_every", "Images every N steps", "0 for none", &asked.validate_every, "1"))
                        (select("dtype", "Precision", "", &or_default(&["fp32", "tf32", "bf16"], "default"), &asked.dtype))
                        div class="field check" {
                            input id="gradient_checkpointing" name="gradient_checkpointing" type="checkbox" value="1" checked[!asked.gradient_checkpointing.is_empty()];
                            label for="gradient_checkpointing" { "Gradient checkpointing (less memory, slower)" }
                        }
                        (field("set", "Single values", "Lines such as phases.unet.learning_rate=1e-6", &html! { textarea id="set" name="set" rows="3" spellcheck="false" { (asked.set) } }))
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

/// A photo's part of an upload.
pub(crate) async fn add_photos(State(studio): State<Arc<Studio>>, mut form: Multipart) -> Answer<Redirect> {
    let own = studio.library.own("photos");
    // A hidden folder beside the others, gone if anything is wrong.
    let staging = tempfile::TempDir::with_prefix_in(".uploading-", &own)
        .map_err(|error| Failure::new(StatusCode::INSUFFICIENT_STORAGE, format!("photos cannot be stored: {error}")))?;
    let (mut set, mut taken) = (String::new(), 0);
    let broken = |error| Failure::new(StatusCode::BAD_REQUEST, format!("the upload was cut off: {error}"));
    while let Some(field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("set") => set = field.text().await.map_err(broken)?,
            Some("photos") => {
                let name = field.file_name().unwrap_or_default().to_owned();
                if name.is_empty() {
                    continue;
                }
                taken += 1;
                if taken > MOST_PHOTOS {
                    return Err(Failure::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        format!("these are more than {MOST_PHOTOS} photos: three to six are enough"),
                    ));
                }
                store(field, &staging.path().join(file_name(&name, taken)), &name).await?;
            }
            _ => {}
        }
    }
    let name: Name = set.trim().parse()?;
    if taken == 0 {
        return Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "there are no photos in the upload: choose three to six",
        ));
    }
    let folder = own.join(name.as_str());
    let url = format!("/teach?photos={}", name.url());
    blocking(move || -> Result<()> {
        // Every photo is decoded once, so that whatever is wrong is said now.
        PhotoFolder::open(staging.path()).map_err(|error| {
            let place = staging.path().display().to_string();
            anyhow::anyhow!(error.to_string().replace(&format!(" in {place}"), "").replace(&place, "that was uploaded"))
        })?;
        ensure!(!folder.exists(), "there are photos called {:?} already: choose another name", name.as_str());
        fs::rename(staging.keep(), &folder).context("the photos cannot be stored")
    })
    .await??;
    Ok(see(url))
}

/// Writes a file that is uploaded, as it comes.
async fn store(mut field: Field<'_>, path: &FilePath, name: &str) -> Answer<()> {
    let shown = terminal::shortened(name).to_string();
    let full = |error: std::io::Error| {
        Failure::new(StatusCode::INSUFFICIENT_STORAGE, format!("the photo {shown:?} cannot be stored: {error}"))
    };
    let mut file = File::create_new(path).map_err(full)?;
    let mut bytes = 0;
    loop {
        let chunk = field.chunk().await;
        let chunk = chunk.map_err(|error| {
            Failure::new(StatusCode::BAD_REQUEST, format!("the upload of {shown:?} was cut off: {error}"))
        })?;
        let Some(chunk) = chunk else { return Ok(()) };
        bytes += chunk.len() as u64;
        if bytes > MOST_BYTES {
            return Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the photo {shown:?} is larger than {} MB: save it smaller", MOST_BYTES >> 20),
            ));
        }
        file.write_all(&chunk).map_err(full)?;
    }
}

/// A name for a file that is uploaded as `name`: the last part of it, if that is one.
fn file_name(name: &str, number: usize) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String =
        last.chars().filter(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ')).take(80).collect();
    let name = plain.trim_matches(['.', ' ', '-']);
    match name.parse::<Name>() {
        // Two may have the same name.
        Ok(name) => format!("{number:02}-{name}"),
        Err(_) => format!("{number:02}.image"),
    }
}

pub(crate) async fn thumbnail(
    State(studio): State<Arc<Studio>>,
    Path((set, file)): Path<(Name, String)>,
) -> Answer<Response> {
    blocking(move || {
        let photo = library::inside(&studio.library.photos(&set)?, &file)?;
        files::thumbnail(&photo)
    })
    .await?
    .map_err(Failure::not_found)
}

pub(crate) async fn first_photo(State(studio): State<Arc<Studio>>, Path(set): Path<Name>) -> Answer<Response> {
    blocking(move || {
        let folder = studio.library.photos(&set)?;
        let first = library::names(&folder).into_iter().next().context("there are no photos")?;
        files::thumbnail(&library::inside(&folder, first.as_str())?)
    })
    .await?
    .map_err(Failure::not_found)
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
fn enqueue(studio: &Studio, run: &Name, arguments: Vec<String>) -> Result<u64> {
    studio.library.new_run(run)?;
    studio.workers.add_training(Job::new(Kind::Train, format!("Train {run}"), Some(run.clone()), arguments))
}

/// Finds out what a run would take.
pub(crate) async fn plan(State(studio): State<Arc<Studio>>, Form(asked): Form<Teaching>) -> Answer<Redirect> {
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
        studio.workers.add(Job::new(Kind::Plan, format!("Check {run}"), Some(run), arguments))
    })
    .await??;
    Ok(see(format!("/plans/{id}")))
}

pub(crate) async fn planned(State(studio): State<Arc<Studio>>, Path(id): Path<u64>) -> Answer {
    let job = plan_of(&studio, id)?;
    let body = html! { div id="plan" { (plan_body(&job)) } };
    let title = format!("Check of {}", job.run.map_or(String::new(), |run| run.to_string()));
    Ok(Page { title, here: "Teach", live: Some(format!("/plans/{id}/events")), lead: html! {}, body })
}

fn plan_of(studio: &Studio, id: u64) -> Answer<Job> {
    let job = studio.workers.jobs(|jobs| jobs.get(id).cloned()).filter(|job| job.kind == Kind::Plan);
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
fn sheet(job: &Job) -> Option<PathBuf> {
    job.arguments.iter().find_map(|argument| argument.strip_prefix("--contact-sheet=")).map(PathBuf::from)
}

pub(crate) async fn planned_sheet(State(studio): State<Arc<Studio>>, Path(id): Path<u64>) -> Answer<Response> {
    let path = sheet(&plan_of(&studio, id)?).ok_or_else(|| Failure::not_found("there are no crops"))?;
    blocking(move || files::image(&path)).await?.map_err(Failure::not_found)
}

/// Starts what was checked.
pub(crate) async fn start_planned(State(studio): State<Arc<Studio>>, Path(id): Path<u64>) -> Answer<Response> {
    let job = plan_of(&studio, id)?;
    let run = job.run.clone().ok_or_else(|| Failure::not_found("this check is of no run"))?;
    let url = format!("/runs/{}", run.url());
    let arguments =
        job.arguments.iter().filter(|argument| *argument != "--dry-run" && !argument.starts_with("--contact-sheet="));
    let arguments = arguments.cloned().collect();
    blocking(move || enqueue(&studio, &run, arguments)).await??;
    Ok(see(url).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_the_last_part_of_what_a_browser_gives() {
        for (given, expected) in [
            ("dog.jpg", "03-dog.jpg"),
            ("../../etc/passwd", "03-passwd"),
            ("C:\\photos\\dog.JPG", "03-dog.JPG"),
            ("..", "03.image"),
            ("", "03.image"),
            (".hidden.png", "03-hidden.png"),
            ("Ein Hündchen 🐕.jpg", "03-Ein Hündchen .jpg"),
        ] {
            assert_eq!(file_name(given, 3), expected);
        }
    }
}
