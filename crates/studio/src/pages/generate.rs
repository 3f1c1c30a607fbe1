//! Generating images: what is asked for, and what has come.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::extract::{Form, Query, State};
use axum::response::Redirect;
use maud::{Markup, html};
use options::{Adapter, SchedulerKind};
use runs::ImageEntry;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Page, blocking, see, sentence, visible};
use crate::jobs::{Job, Kind, State as JobState};
use crate::library::{GalleryImage, Library};
use crate::live::Parts;
use crate::name::encoded;
use crate::parts::{self, field, number, select};
use crate::request;
use crate::source::Source;
use crate::studio::Studio;

/// Characters of a prompt: far more than CLIP reads.
const LONGEST: usize = 20_000;
/// The newest images that the page shows.
const NEWEST: usize = 12;

/// What is asked for, in the words of the page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Generating {
    pub(crate) source: String,
    pub(crate) prompt: String,
    pub(crate) negative_prompt: String,
    pub(crate) seed: String,
    pub(crate) images: String,
    pub(crate) batch_size: String,
    pub(crate) steps: String,
    pub(crate) guidance_scale: String,
    pub(crate) scheduler: String,
    pub(crate) width: String,
    pub(crate) height: String,
    pub(crate) lora: String,
    /// Of that LoRA, or else of the run's own.
    pub(crate) lora_scale: String,
    /// Also without what was learned, from the same noise.
    pub(crate) base: String,
    /// How many images are shown on the way to one.
    pub(crate) previews: String,
}

impl Generating {
    /// The job.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn job(&self, library: &Library) -> Result<Job> {
        let source: Source = self.source.parse().context("choose a run or a model")?;
        self.job_of(library, &source, &self.prompt)
    }

    /// The same with the run's base model, which the subject is called by its class noun for.
    fn base_job(&self, library: &Library) -> Result<Option<Job>> {
        let Ok(Source::Run(name)) = self.source.parse() else { return Ok(None) };
        let config = runs::SavedRun::read(&library.known_run(&name)?)?.record.config;
        let model = library.models().iter().find(|model| model.path == config.model);
        let model = model.context("the run's base model is not among the studio's; start it with --model")?;
        let prompt = self.prompt.replace("[V] ", "").replace("[V]", &config.category);
        self.job_of(library, &Source::Model(model.name.clone()), &prompt).map(Some)
    }

    fn job_of(&self, library: &Library, source: &Source, prompt: &str) -> Result<Job> {
        for (what, text) in [("prompt", prompt), ("negative prompt", &self.negative_prompt)] {
            let length = text.chars().count();
            ensure!(
                length <= LONGEST,
                "the {what} has {length} characters, more than {LONGEST}; CLIP reads the first 77 tokens"
            );
        }
        ensure!(
            !prompt.contains('\0') && !self.negative_prompt.contains('\0'),
            "the prompt has a character that no text has"
        );
        let folder = library.images_folder(source)?;
        let mut arguments = vec!["generate".to_owned()];
        arguments.push(match source {
            Source::Run(name) => format!("--run={}", library.known_run(name)?.display()),
            Source::Model(name) => format!("--model={}", library.model(name)?.path.display()),
        });
        arguments.extend([format!("--out={}", folder.display()), format!("--prompt={prompt}")]);
        let seed = if self.seed.trim().is_empty() { "-1".to_owned() } else { self.seed.clone() };
        let values = [
            ("negative-prompt", &self.negative_prompt),
            ("seed", &seed),
            ("images", &self.images),
            ("batch-size", &self.batch_size),
            ("steps", &self.steps),
            ("guidance-scale", &self.guidance_scale),
            ("scheduler", &self.scheduler),
            ("width", &self.width),
            ("height", &self.height),
            ("previews", &self.previews),
        ];
        arguments.extend(request::given(&values));
        if !self.lora.is_empty() {
            let (_, path) = library
                .loras()
                .into_iter()
                .find(|(name, _)| name.as_str() == self.lora)
                .context("there is no such LoRA")?;
            let scale: f64 = if self.lora_scale.trim().is_empty() {
                1.0
            } else {
                self.lora_scale.trim().parse().context("the scale of a LoRA is a number")?
            };
            arguments.push(format!("--lora={}:{scale}", path.display()));
        } else if matches!(source, Source::Run(_)) {
            arguments.extend(request::given(&[("lora-scale", &self.lora_scale)]));
        }
        request::check(&arguments)?;
        let run = match source {
            Source::Run(name) => Some(name.clone()),
            Source::Model(_) => None,
        };
        Ok(Job::new(
            Kind::Generate,
            format!("Generate {:?} with {}", terminal::shortened(prompt), source.name()),
            run,
            arguments,
        ))
    }

    /// What an image of the gallery was asked for with; the seed is left open.
    pub(crate) fn of(image: &GalleryImage) -> Self {
        let ImageEntry { prompt, negative_prompt, steps, guidance_scale, width, height, scheduler, loras, .. } =
            image.entry.clone();
        let lora = loras
            .first()
            .and_then(|lora| lora.rsplit_once(':'))
            .map(|(path, scale)| (path.to_owned(), scale.to_owned()));
        let own = || image.entry.lora_scale.map_or(String::new(), |scale| scale.to_string());
        let (lora, lora_scale) = lora.unwrap_or_else(|| (String::new(), own()));
        Self {
            source: image.source.to_string(),
            prompt,
            negative_prompt,
            steps: steps.to_string(),
            guidance_scale: guidance_scale.to_string(),
            width: width.to_string(),
            height: height.to_string(),
            scheduler: scheduler.parse::<SchedulerKind>().map(|kind| kind.short_name().to_owned()).unwrap_or_default(),
            lora: lora.rsplit('/').next().unwrap_or_default().to_owned(),
            lora_scale,
            previews: "3".to_owned(),
            ..Self::default()
        }
    }

    /// All values, for links and hidden fields.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("source", &self.source),
            ("prompt", &self.prompt),
            ("negative_prompt", &self.negative_prompt),
            ("seed", &self.seed),
            ("images", &self.images),
            ("steps", &self.steps),
            ("guidance_scale", &self.guidance_scale),
            ("scheduler", &self.scheduler),
            ("width", &self.width),
            ("height", &self.height),
            ("lora", &self.lora),
            ("lora_scale", &self.lora_scale),
            ("base", &self.base),
            ("previews", &self.previews),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.as_str())).collect()
    }

    /// The address of the form with these values.
    pub(crate) fn url(&self) -> String {
        let pairs = self.pairs().into_iter().map(|(name, value)| format!("{name}={}", encoded(value)));
        format!("/generate?{}", pairs.collect::<Vec<_>>().join("&"))
    }
}

pub(crate) async fn page(State(studio): State<Arc<Studio>>, Query(asked): Query<Generating>) -> Answer {
    let body = blocking(move || -> Result<Markup> {
        let sources = parts::sources(&studio, false);
        let loras = studio.library.loras();
        let with_default = |values: Vec<String>, default: &str| {
            let named = values.into_iter().map(|value| (value.clone(), value));
            std::iter::once((String::new(), default.to_owned())).chain(named).collect::<Vec<_>>()
        };
        let schedulers = with_default(SchedulerKind::ALL.iter().map(|kind| kind.short_name().to_owned()).collect(), "default");
        let loras = with_default(loras.into_iter().map(|(name, _)| name.to_string()).collect(), "none");
        let text = |id: &str, value: &str, required: bool| html! { textarea id=(id) name=(id) rows="2" required[required] spellcheck="false" maxlength=(LONGEST) { (value) } };
        Ok(html! {
            section {
                @if sources.is_empty() { p role="alert" { "There is no base model: start the studio with --model." } }
                form method="post" action="/generate" class="form" id="generating" {
                    (select("source", "With", "", &sources, &asked.source))
                    div class="wide" { (field("prompt", "Prompt", "[V] is the subject that a run has learned", &text("prompt", &asked.prompt, true))) }
                    div class="wide" { (field("negative_prompt", "Negative prompt", "", &text("negative_prompt", &asked.negative_prompt, false))) }
                    (field("seed", "Seed", "", &html! { input id="seed" name="seed" type="number" step="1" value=(asked.seed) placeholder="random"; }))
                    (number("images", "Images", "", &asked.images, "1"))
                    (number("steps", "Steps", "", &asked.steps, "1"))
                    (number("guidance_scale", "Guidance scale", "", &asked.guidance_scale, "any"))
                    (select("scheduler", "Scheduler", "", &schedulers, &asked.scheduler))
                    (number("previews", "Previews", "On the way to an image; each costs some time", if asked.previews.is_empty() { "3" } else { &asked.previews }, "1"))
                    (number("width", "Width", "Pixels", &asked.width, "8"))
                    (number("height", "Height", "Pixels", &asked.height, "8"))
                    @if loras.len() > 1 { (select("lora", "LoRA", "", &loras, &asked.lora)) }
                    @if loras.len() > 1 || learned_lora(&studio) {
                        (number("lora_scale", "LoRA scale", "Of this LoRA, or of the one that the run has learned; 0 is without it", &asked.lora_scale, "any"))
                    }
                    div class="field check" {
                        input id="base" name="base" type="checkbox" value="1" checked[!asked.base.is_empty()];
                        label for="base" { "Also with the base model, from the same noise" }
                    }
                    div class="buttons wide" { button class="main" type="submit" { "Generate" } }
                }
            }
            div id="jobs" { (jobs(&studio)) }
            div id="newest" { (newest(&studio)?) }
        })
    })
    .await??;
    Ok(Page {
        title: "Generate images".into(),
        here: "Generate",
        live: Some("/generate/events".into()),
        lead: html! {},
        body,
    })
}

/// Whether any run has learned a LoRA.
fn learned_lora(studio: &Studio) -> bool {
    studio.library.runs().iter().filter_map(|name| studio.library.run(name)).any(|folder| {
        runs::SavedRun::read(&folder)
            .is_ok_and(|saved| matches!(saved.record.config.adapter, Some(Adapter::Lora { .. })))
    })
}

/// What the page follows.
pub(crate) fn live(studio: &Studio) -> Parts {
    let newest = newest(studio).unwrap_or_else(|error| html! { p role="alert" { (sentence(&format!("{error:#}"))) } });
    vec![("jobs".into(), visible(jobs(studio))), ("newest".into(), visible(newest))]
}

fn jobs(studio: &Studio) -> Markup {
    let shown = |job: &&Job| job.kind == Kind::Generate && job.state != JobState::Done;
    let mut jobs: Vec<Job> = studio.queue.jobs(|jobs| jobs.all().iter().filter(shown).cloned().collect());
    let failed = jobs.iter().filter(|job| job.state == JobState::Failed).count();
    // Of those that have failed the last ones are of interest.
    let mut old = failed.saturating_sub(3);
    jobs.retain(|job| {
        let forgotten = job.state == JobState::Failed && old > 0;
        old -= usize::from(forgotten);
        !forgotten
    });
    html! { @if !jobs.is_empty() { section { h2 { "Jobs" } @for job in &jobs { (parts::job(job)) } } } }
}

fn newest(studio: &Studio) -> Result<Markup> {
    let (images, _) = studio.library.gallery(None, 0, NEWEST)?;
    let noted: Vec<String> = studio.queue.jobs(|jobs| {
        let last = jobs.all().iter().rfind(|job| job.kind == Kind::Generate && job.state == JobState::Done);
        last.map(|job| job.notes.clone()).unwrap_or_default()
    });
    Ok(html! {
        @for note in &noted { p class="note" { (sentence(note)) } }
        @if !images.is_empty() {
            section {
                h2 { "Newest" }
                div class="tiles" { @for image in &images { (parts::tile(image)) } }
                p { a href="/gallery" { "All images" } }
            }
        }
    })
}

pub(crate) async fn generate(State(studio): State<Arc<Studio>>, Form(mut asked): Form<Generating>) -> Answer<Redirect> {
    let url = blocking(move || -> Result<String> {
        let base = !asked.base.is_empty();
        let shown = asked.clone();
        if base && asked.seed.trim().is_empty() {
            // The same noise for both.
            asked.seed = "-1".parse::<requests::Seed>()?.to_string();
        }
        let of_base = if base { asked.base_job(&studio.library)? } else { None };
        let job = asked.job(&studio.library)?;
        for job in of_base.into_iter().chain([job]) {
            studio.queue.add(job)?;
        }
        Ok(shown.url())
    })
    .await??;
    Ok(see(url))
}
