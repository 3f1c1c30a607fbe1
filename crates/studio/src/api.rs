//! What the pages show as JSON, for programs: `GET /api/runs`, `GET /api/jobs`, `GET /api/images`. They change things by the forms that
//! the pages send.

use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Json, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Failure, blocking};
use crate::run_state::RunState;
use crate::studio::Studio;

/// What went wrong, for programs.
pub(crate) struct Refused(Failure);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Failure { status, said } = self.0;
        (status, Json(json!({ "error": said }))).into_response()
    }
}

impl<T: Into<Failure>> From<T> for Refused {
    fn from(failure: T) -> Self {
        Self(failure.into())
    }
}

pub(crate) async fn runs(State(studio): State<Arc<Studio>>) -> Result<Json<Value>, Refused> {
    let run = |state: RunState| {
        json!({
            "name": state.name, "state": state.doing.word(), "step": state.done, "steps": state.steps, "phase": state.phase,
            "seconds_left": state.left, "config": state.config,
        })
    };
    let runs = move || {
        studio.library.runs().iter().filter_map(|name| RunState::of(&studio, name).ok()).map(run).collect::<Vec<_>>()
    };
    Ok(Json(blocking(runs).await?.into()))
}

pub(crate) async fn jobs(State(studio): State<Arc<Studio>>) -> Json<Value> {
    let job = |job: &crate::jobs::Job| {
        // Places on the disk are nobody's business.
        let images: Vec<_> = job.images.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        json!({
            "id": job.id, "kind": job.kind, "title": job.title, "run": job.run, "state": job.state, "said": job.said, "notes": job.notes,
            "images": images, "progress": job.progress, "time": job.time,
        })
    };
    Json(studio.queue.jobs(|jobs| jobs.all().iter().map(job).collect()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Images {
    source: String,
    skip: usize,
}

/// Images that are told at once.
const MOST: usize = 100;

pub(crate) async fn images(
    State(studio): State<Arc<Studio>>,
    Query(asked): Query<Images>,
) -> Result<Json<Value>, Refused> {
    let gallery = move || -> Result<Value> {
        let source = (!asked.source.is_empty()).then(|| asked.source.parse()).transpose()?;
        let (images, total) = studio.library.gallery(source.as_ref(), asked.skip, MOST)?;
        let image = |image: &crate::library::GalleryImage| {
            let entry = &image.entry;
            json!({
                "url": image.url(), "source": image.source.to_string(), "prompt": entry.prompt, "negative_prompt": entry.negative_prompt,
                "seed": entry.seed, "steps": entry.steps, "guidance_scale": entry.guidance_scale, "width": entry.width,
                "height": entry.height, "scheduler": entry.scheduler, "time": entry.time,
            })
        };
        Ok(json!({ "total": total, "images": images.iter().map(image).collect::<Vec<_>>() }))
    };
    Ok(Json(blocking(gallery).await??))
}
