//! The part of the API of A1111's web UI that has a meaning here, so that its clients work.
//!
//! What a client calls a checkpoint is a run or a base model, by its title in `sd-models`. A request waits in the queue like those of
//! the pages, and its images are in the gallery. docs/studio.md says what each field means, and which are refused.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use options::SchedulerKind;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::answer::{Failure, blocking};
use crate::files;
use crate::jobs::{Job, Kind, State as JobState};
use crate::pages::generate::Generating;
use crate::queue::Intent;
use crate::source::Source;
use crate::studio::Studio;

/// The schedulers by A1111's names.
const SAMPLERS: [(&str, SchedulerKind); 6] = [
    ("Euler a", SchedulerKind::EulerAncestral),
    ("Euler", SchedulerKind::Euler),
    ("DPM++ 2M", SchedulerKind::DpmSolverPlusPlus),
    ("DDIM", SchedulerKind::Ddim),
    ("PLMS", SchedulerKind::Pndm),
    ("DDPM", SchedulerKind::Ddpm),
];
/// The only one of A1111's options that there is.
const CHECKPOINT: &str = "sd_model_checkpoint";

pub(crate) fn routes() -> Router<Arc<Studio>> {
    Router::new()
        .route("/sdapi/v1/txt2img", post(txt2img))
        .route("/sdapi/v1/sd-models", get(models))
        .route("/sdapi/v1/samplers", get(samplers))
        .route("/sdapi/v1/progress", get(progress))
        .route("/sdapi/v1/interrupt", post(interrupt))
        .route("/sdapi/v1/png-info", post(png_info))
        .route("/sdapi/v1/options", get(options).post(set_options))
}

/// An error as A1111 answers.
pub(crate) struct Refused(Failure);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Failure { status, said } = self.0;
        (status, Json(json!({ "error": "Refused", "detail": said, "body": "", "errors": said }))).into_response()
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self(error.into())
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

type Reply = Result<Json<Value>, Refused>;

/// What has a meaning of A1111's request. Fields with their neutral values may be there, others are refused by name.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct TextToImage {
    prompt: String,
    negative_prompt: Option<String>,
    seed: i64,
    steps: u32,
    cfg_scale: f64,
    width: u32,
    height: u32,
    batch_size: u32,
    n_iter: u32,
    sampler_name: Option<String>,
    sampler_index: Option<String>,
    override_settings: Option<Map<String, Value>>,
    send_images: bool,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A1111's.
impl Default for TextToImage {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            negative_prompt: None,
            seed: -1,
            steps: 50,
            cfg_scale: 7.0,
            width: 512,
            height: 512,
            batch_size: 1,
            n_iter: 1,
            sampler_name: None,
            sampler_index: None,
            override_settings: None,
            send_images: true,
            others: Map::new(),
        }
    }
}

/// What would change the image, and is not done here.
const REFUSED: [&str; 6] = ["enable_hr", "tiling", "restore_faces", "styles", "script_name", "alwayson_scripts"];

impl TextToImage {
    fn asked(&self, chosen: Option<Source>) -> Result<Generating> {
        for name in REFUSED {
            let neutral = match self.others.get(name) {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::String(text)) => text.is_empty(),
                Some(Value::Array(list)) => list.is_empty(),
                Some(Value::Object(map)) => map.is_empty(),
                Some(_) => false,
            };
            ensure!(neutral, "{name} is not done here; leave it out");
        }
        let settings = self.override_settings.iter().flatten();
        let mut source = chosen;
        for (name, value) in settings {
            match (name.as_str(), value.as_str()) {
                (CHECKPOINT, Some(title)) => source = Some(title.parse()?),
                _ => bail!("override_settings has {name:?}, but only {CHECKPOINT} can be set"),
            }
        }
        let sampler = self.sampler_name.as_ref().or(self.sampler_index.as_ref());
        Ok(Generating {
            source: source.context("there is no base model: start the studio with --model")?.to_string(),
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone().unwrap_or_default(),
            seed: self.seed.to_string(),
            images: self.batch_size.saturating_mul(self.n_iter).to_string(),
            batch_size: self.batch_size.to_string(),
            steps: self.steps.to_string(),
            guidance_scale: self.cfg_scale.to_string(),
            width: self.width.to_string(),
            height: self.height.to_string(),
            // What clients ask `progress` for.
            previews: "3".to_owned(),
            scheduler: sampler
                .map(|name| scheduler(name))
                .transpose()?
                .map(|kind| kind.short_name().to_owned())
                .unwrap_or_default(),
            ..Generating::default()
        })
    }
}

/// A scheduler by A1111's name, ours or diffusers'; none for A1111's "Automatic".
fn scheduler(name: &str) -> Result<SchedulerKind> {
    let known = SAMPLERS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind);
    let names = || SAMPLERS.map(|(name, _)| name).join(", ");
    known
        .or_else(|| name.parse().ok())
        .with_context(|| format!("there is no sampler {:?}; there are {}", terminal::shortened(name), names()))
}

async fn txt2img(State(studio): State<Arc<Studio>>, Json(body): Json<Value>) -> Reply {
    let asked: TextToImage =
        serde_json::from_value(body.clone()).map_err(|error| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    let generating = asked.asked(chosen(&studio))?;
    let at_work = studio.clone();
    let queued = generating.clone();
    let id = blocking(move || at_work.queue.add(queued.job(&at_work.library)?)).await??;
    let job = done(&studio, id).await;
    if job.state == JobState::Failed {
        return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, job.said).into());
    }
    blocking(move || answer(&studio, &asked, &generating, &job, &body)).await?.map_err(Into::into)
}

/// Waits until a job is over. One that was stopped has gone, and is as it was seen last.
async fn done(studio: &Studio, id: u64) -> Job {
    let mut changes = studio.queue.changes();
    let mut last = None;
    loop {
        match studio.queue.jobs(|jobs| jobs.get(id).cloned()) {
            Some(job) if job.state.is_over() => return job,
            Some(job) => last = Some(job),
            None => break,
        }
        if changes.changed().await.is_err() {
            break;
        }
    }
    last.unwrap_or_else(|| Job::new(Kind::Generate, "", None, Vec::new()))
}

fn answer(
    studio: &Studio,
    asked: &TextToImage,
    generating: &Generating,
    job: &Job,
    body: &Value,
) -> Result<Json<Value>> {
    let source: Source = generating.source.parse()?;
    let (mut images, mut seeds, mut infotexts) = (Vec::new(), Vec::new(), Vec::new());
    let mut scheduler = String::new();
    for path in &job.images {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let entry = studio.library.image(&source, &file)?.entry;
        seeds.push(entry.seed);
        scheduler = entry.scheduler;
        let texts = images::png_texts(path)?;
        infotexts
            .push(texts.into_iter().find(|(key, _)| key == "parameters").map(|(_, text)| text).unwrap_or_default());
        if asked.send_images {
            images.push(BASE64_STANDARD.encode(files::bytes(path)?));
        }
    }
    let info = json!({
        "prompt": asked.prompt, "all_prompts": vec![&asked.prompt; seeds.len()],
        "negative_prompt": generating.negative_prompt, "all_negative_prompts": vec![&generating.negative_prompt; seeds.len()],
        "seed": seeds.first(), "all_seeds": seeds, "subseed": 0, "all_subseeds": vec![0; seeds.len()], "subseed_strength": 0,
        "width": asked.width, "height": asked.height, "sampler_name": scheduler, "cfg_scale": asked.cfg_scale,
        "steps": asked.steps, "batch_size": asked.batch_size, "restore_faces": false, "face_restoration_model": null,
        "sd_model_name": source.name(), "sd_model_hash": "", "seed_resize_from_w": -1, "seed_resize_from_h": -1,
        "denoising_strength": 0, "extra_generation_params": {}, "index_of_first_image": 0, "infotexts": infotexts,
        "styles": [], "job_timestamp": job.time.to_string(), "clip_skip": 1, "is_using_inpainting_conditioning": false,
    });
    Ok(Json(json!({ "images": images, "parameters": body, "info": info.to_string() })))
}

/// The checkpoint in the sense of A1111.
fn chosen(studio: &Studio) -> Option<Source> {
    let chosen = studio.checkpoint.lock().map(|chosen| chosen.clone()).ok().flatten();
    chosen.or_else(|| studio.library.models().first().map(|model| Source::Model(model.name.clone())))
}

async fn models(State(studio): State<Arc<Studio>>) -> Reply {
    let sources = blocking(move || crate::parts::sources(&studio, false)).await?;
    let model = |(title, _): (String, String)| {
        let name = title.split_once(':').map_or("", |(_, name)| name).to_owned();
        json!({ "title": title, "model_name": name, "hash": null, "sha256": null, "filename": name, "config": null })
    };
    Ok(Json(sources.into_iter().map(model).collect()))
}

async fn samplers() -> Json<Value> {
    let sampler = |(name, kind): (&str, SchedulerKind)| json!({ "name": name, "aliases": [kind.short_name(), kind.class_name()], "options": {} });
    Json(SAMPLERS.into_iter().map(sampler).collect())
}

async fn progress(State(studio): State<Arc<Studio>>) -> Json<Value> {
    let running = |job: &&Job| job.kind == Kind::Generate && job.state == JobState::Running;
    let (job, waiting) = studio.queue.jobs(|jobs| {
        let waiting =
            jobs.all().iter().filter(|job| job.kind == Kind::Generate && job.state == JobState::Waiting).count();
        (jobs.all().iter().find(running).cloned(), waiting)
    });
    let steps = job.as_ref().and_then(|job| job.progress.clone()).unwrap_or_default();
    let preview = job.as_ref().and_then(|job| job.preview.clone());
    let part = if steps.total > 0 { steps.done as f64 / steps.total as f64 } else { 0.0 };
    Json(json!({
        "progress": part, "eta_relative": 0.0, "current_image": preview.as_deref(), "textinfo": null,
        "state": {
            "skipped": false, "interrupted": false, "stopping_generation": false, "job": job.as_ref().map_or("", |job| job.title.as_str()),
            "job_count": usize::from(job.is_some()) + waiting, "job_timestamp": job.as_ref().map_or(String::new(), |job| job.time.to_string()),
            "job_no": 0, "sampling_step": steps.done, "sampling_steps": steps.total,
        },
    }))
}

async fn interrupt(State(studio): State<Arc<Studio>>) -> Reply {
    blocking(move || -> Result<()> {
        let running = |job: &&Job| job.kind == Kind::Generate && job.state == JobState::Running;
        let ids: Vec<u64> = studio.queue.jobs(|jobs| jobs.all().iter().filter(running).map(|job| job.id).collect());
        ids.into_iter().try_for_each(|id| studio.queue.end(id, Intent::Stop))
    })
    .await??;
    Ok(Json(json!({})))
}

#[derive(Debug, Deserialize)]
struct PngInfo {
    image: String,
}

async fn png_info(Json(asked): Json<PngInfo>) -> Reply {
    let read = move || -> Result<Value> {
        let encoded = asked.image.split_once("base64,").map_or(asked.image.as_str(), |(_, encoded)| encoded);
        let bytes = BASE64_STANDARD.decode(encoded.trim()).context("the image is not in base64")?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), bytes)?;
        let texts = images::png_texts(file.path()).map_err(|_| anyhow::anyhow!("the image is no PNG"))?;
        let items: Map<String, Value> = texts.into_iter().map(|(key, text)| (key, text.into())).collect();
        let info = items.get("parameters").cloned().unwrap_or_else(|| "".into());
        Ok(json!({ "info": info, "items": items, "parameters": {} }))
    };
    Ok(Json(blocking(read).await??))
}

async fn options(State(studio): State<Arc<Studio>>) -> Json<Value> {
    Json(json!({ CHECKPOINT: chosen(&studio).map(|source| source.to_string()) }))
}

async fn set_options(State(studio): State<Arc<Studio>>, Json(asked): Json<Map<String, Value>>) -> Reply {
    let set = move || -> Result<()> {
        for (name, value) in &asked {
            let title = value.as_str().filter(|_| name == CHECKPOINT);
            let source: Source = title
                .with_context(|| format!("{name:?} cannot be set, only {CHECKPOINT} by a title of sd-models"))?
                .parse()?;
            studio.library.images_folder(&source)?;
            if let Ok(mut chosen) = studio.checkpoint.lock() {
                *chosen = Some(source);
            }
        }
        Ok(())
    };
    blocking(set).await??;
    Ok(Json(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: Value) -> Result<Generating> {
        serde_json::from_value::<TextToImage>(value).unwrap().asked(Some("model:miniature".parse().unwrap()))
    }

    #[test]
    fn fields_have_the_meaning_of_a1111_and_its_defaults() {
        let given = asked(json!({ "prompt": "a fox" })).unwrap();
        let said = |value: &str| value.to_owned();
        let expected = Generating {
            source: said("model:miniature"),
            prompt: said("a fox"),
            seed: said("-1"),
            images: said("1"),
            batch_size: said("1"),
            steps: said("50"),
            guidance_scale: said("7"),
            width: said("512"),
            height: said("512"),
            previews: said("3"),
            ..Generating::default()
        };
        assert_eq!(given, expected);
        let given = asked(json!({
            "prompt": "", "sampler_name": "Euler a", "batch_size": 2, "n_iter": 3, "enable_hr": false, "styles": [], "alwayson_scripts": {},
            "override_settings": { "sd_model_checkpoint": "run:penguin" }, "some_field_of_tomorrow": 1,
        }))
        .unwrap();
        assert_eq!(
            (given.scheduler.as_str(), given.images.as_str(), given.source.as_str()),
            ("euler-ancestral", "6", "run:penguin")
        );
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (value, words) in [
            (json!({ "enable_hr": true }), "enable_hr is not done here"),
            (json!({ "styles": ["x"] }), "styles is not done here"),
            (
                json!({ "sampler_name": "DPM++ 3M SDE" }),
                "there is no sampler \"DPM++ 3M SDE\"; there are Euler a, Euler",
            ),
            (json!({ "override_settings": { "CLIP_stop_at_last_layers": 2 } }), "only sd_model_checkpoint can be set"),
            (json!({ "override_settings": { "sd_model_checkpoint": "../x" } }), "neither run:NAME nor model:NAME"),
        ] {
            let error = asked(value).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn samplers_have_three_names() {
        for (name, kind) in SAMPLERS {
            assert_eq!(scheduler(name).unwrap(), kind);
            assert_eq!(scheduler(kind.short_name()).unwrap(), kind);
            assert_eq!(scheduler(kind.class_name()).unwrap(), kind);
        }
    }
}
