//! Which address means what.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};

use crate::access::{self, Access};
use crate::answer::Failure;
use crate::api;
use crate::files;
use crate::name::Name;
use crate::openapi;
use crate::pages::{attention, compare, deletion, exports, gallery, generate, home, photos, plan, run, teach};
use crate::sdapi;
use crate::studio::Studio;

/// The most bytes of a request that uploads nothing: an image for `png-info` among them.
const MOST_BYTES: usize = 64 << 20;

pub(crate) fn router(studio: Arc<Studio>, access: Access) -> Router {
    let pages = Router::new()
        .route("/", get(home::page))
        .route("/events", get(home_events))
        .route("/jobs/{id}/pause", post(home::pause))
        .route("/jobs/{id}/stop", post(home::stop))
        .route("/jobs/{id}/resume", post(home::resume))
        .route("/jobs/{id}/advance", post(home::advance))
        .route("/teach", get(teach::page))
        .route("/photos", post(photos::add).layer(DefaultBodyLimit::max(photos::MOST_UPLOAD)))
        .route("/photos/{set}/first.jpg", get(photos::first))
        .route("/photos/{set}/thumbnails/{file}", get(photos::thumbnail))
        .route("/plans", post(plan::check))
        .route("/plans/{id}", get(plan::page))
        .route("/plans/{id}/events", get(plan_events))
        .route("/plans/{id}/sheet.png", get(plan::sheet))
        .route("/plans/{id}/start", post(plan::start))
        .route("/runs", post(teach::start))
        .route("/runs/{name}", get(run::page))
        .route("/runs/{name}/events", get(run_events))
        .route("/runs/{name}/pause", post(run::pause))
        .route("/runs/{name}/stop", post(run::stop))
        .route("/runs/{name}/resume", post(run::resume))
        .route("/runs/{name}/sheet.png", get(run::sheet))
        .route("/runs/{name}/samples/{file}", get(run::sample))
        .route("/runs/{name}/report", get(run::report))
        .route("/runs/{name}/scores", post(run::scores))
        .route("/runs/{name}/attention", get(attention::page).post(attention::attend))
        .route("/runs/{name}/attention/events", get(attention_events))
        .route("/runs/{name}/attention/{file}", get(attention::file))
        .route("/runs/{name}/exports/{file}", get(exports::download).post(exports::export))
        .route("/generate", get(generate::page).post(generate::generate))
        .route("/generate/events", get(generate_events))
        .route("/gallery", get(gallery::page))
        .route("/beside", get(gallery::beside))
        .route("/images/{source}/{file}", get(gallery::image))
        .route("/images/{source}/{file}/about", get(gallery::about))
        .route("/delete", get(deletion::page).post(deletion::delete))
        .route("/compare", get(compare::page))
        .route("/compare/runs", get(compare::runs))
        .route("/compare/study", get(compare::study))
        .route("/api/runs", get(api::runs))
        .route("/api/jobs", get(api::jobs))
        .route("/api/images", get(api::images))
        .route("/openapi.json", get(openapi::page))
        .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
        .route("/assets/style.css", get(files::style))
        .route("/assets/report.js", get(files::report_script))
        .route("/assets/studio.js", get(files::script));
    pages
        .merge(sdapi::routes())
        .fallback(|| async { Failure::not_found("there is no such page") })
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn_with_state(Arc::new(access), access::guard))
        .with_state(studio)
}

async fn home_events(State(studio): State<Arc<Studio>>) -> impl IntoResponse {
    let shown = studio.clone();
    studio.live.follow("home", Arc::new(move || home::live(&shown)))
}

async fn plan_events(State(studio): State<Arc<Studio>>, Path(id): Path<u64>) -> impl IntoResponse {
    let shown = studio.clone();
    studio.live.follow(&format!("plan {id}"), Arc::new(move || plan::live(&shown, id)))
}

async fn run_events(State(studio): State<Arc<Studio>>, Path(name): Path<Name>) -> impl IntoResponse {
    let shown = studio.clone();
    studio.live.follow(&format!("run {name}"), Arc::new(move || run::live(&shown, &name)))
}

async fn attention_events(State(studio): State<Arc<Studio>>, Path(name): Path<Name>) -> impl IntoResponse {
    let shown = studio.clone();
    studio.live.follow(&format!("attention {name}"), Arc::new(move || attention::live(&shown, &name)))
}

async fn generate_events(State(studio): State<Arc<Studio>>) -> impl IntoResponse {
    let shown = studio.clone();
    studio.live.follow("generate", Arc::new(move || generate::live(&shown)))
}
