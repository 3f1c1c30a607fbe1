//! Runs beside each other, and a blind study of them.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Response};
use maud::html;
use report::{Comparison, StudyOptions};

use crate::answer::{Answer, Page, blocking};
use crate::files;
use crate::name::Name;
use crate::parts;
use crate::studio::Studio;

/// As many as a table has room for.
const MOST: usize = 8;
/// Images of each prompt, and questions of a study.
const IMAGES: usize = 4;
const QUESTIONS: usize = 20;

pub(crate) async fn page(State(studio): State<Arc<Studio>>) -> Answer {
    let learned = blocking(move || {
        let mut runs = studio.library.runs();
        runs.retain(|name| studio.library.run(name).is_some_and(|folder| parts::is_learned(&folder)));
        runs
    })
    .await?;
    let body = html! {
        section {
            @if learned.len() < 2 { p { "There is nothing to compare before two runs are finished." } } @else {
                form method="get" action="/compare/runs" class="form" {
                    fieldset class="wide" {
                        legend { "Runs" }
                        @for run in &learned {
                            div class="field check" { input type="checkbox" name="run" value=(run) id={ "run-" (run) }; label for={ "run-" (run) } { (run) } }
                        }
                    }
                    div class="buttons wide" {
                        button class="main" type="submit" { "Compare" }
                        button type="submit" formaction="/compare/study" { "Blind study" }
                    }
                }
                p class="note" { "Images are compared where runs have the same prompt and seed. The study asks people which image they prefer; its answers are counted by " code { "attndreambooth compare --answers" } "." }
            }
        }
    };
    Ok(Page { title: "Compare runs".into(), here: "Compare", live: None, lead: html! {}, body })
}

pub(crate) async fn runs(
    State(studio): State<Arc<Studio>>,
    Query(chosen): Query<Vec<(String, String)>>,
) -> Answer<Response> {
    let page = blocking(move || Comparison::open(&folders(&studio, &chosen)?)?.page(IMAGES)).await??;
    Ok((files::ALONE, Html(page)).into_response())
}

pub(crate) async fn study(
    State(studio): State<Arc<Studio>>,
    Query(chosen): Query<Vec<(String, String)>>,
) -> Answer<Response> {
    let options = StudyOptions { questions: QUESTIONS, seed: 0, reference: None };
    let page = blocking(move || Comparison::open(&folders(&studio, &chosen)?)?.study(&options)).await??;
    Ok((files::ALONE, Html(page)).into_response())
}

fn folders(studio: &Studio, chosen: &[(String, String)]) -> Result<Vec<PathBuf>> {
    let chosen: Vec<&str> = chosen.iter().filter(|(key, _)| key == "run").map(|(_, run)| run.as_str()).collect();
    ensure!((2..=MOST).contains(&chosen.len()), "choose two runs or more, {MOST} at most");
    chosen.into_iter().map(|run| studio.library.known_run(&run.parse::<Name>()?)).collect()
}
