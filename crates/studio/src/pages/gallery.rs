//! All generated images with their parameters, and some of them side by side.

use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::deletion::{self, Target};
use super::generate::Generating;
use crate::answer::{Answer, Failure, Page, blocking};
use crate::files;
use crate::folder::inside;
use crate::library::GalleryImage;
use crate::name::encoded;
use crate::parts::{self, ago, select};
use crate::source::Source;
use crate::studio::Studio;

/// Images of one page.
const OF_PAGE: usize = 48;
/// Images that fit side by side.
const MOST_BESIDE: usize = 8;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Shown {
    source: String,
    page: usize,
}

pub(crate) async fn page(State(studio): State<Arc<Studio>>, Query(shown): Query<Shown>) -> Answer {
    let body = blocking(move || -> Result<Markup> {
        let of = (!shown.source.is_empty()).then(|| shown.source.parse::<Source>()).transpose()?;
        let (images, total) = studio.library.gallery(of.as_ref(), shown.page.saturating_mul(OF_PAGE), OF_PAGE)?;
        let mut sources = vec![(String::new(), "everything".to_owned())];
        sources.extend(parts::sources(&studio, true));
        let at = |page: usize| format!("/gallery?source={}&page={page}", encoded(&shown.source));
        let pages = total.div_ceil(OF_PAGE);
        Ok(html! {
            form method="get" action="/gallery" class="filter" {
                (select("source", "Images of", "", &sources, &shown.source))
                button type="submit" { "Show" }
            }
            form method="get" action="/beside" {
                section {
                    @if images.is_empty() { p { "There are no images yet. " a href="/generate" { "Generate some" } "." } }
                    div class="tiles" { @for image in &images { (choosable(image)) } }
                    div class="buttons" {
                        @if images.len() > 1 { button type="submit" { "Chosen ones side by side" } }
                        @if shown.page > 0 { a class="button" href=(at(shown.page - 1)) { "Newer" } }
                        @if pages > 1 { span class="note" { "page " (shown.page + 1) " of " (pages) } }
                        @if shown.page + 1 < pages { a class="button" href=(at(shown.page + 1)) { "Older" } }
                    }
                }
            }
        })
    })
    .await??;
    Ok(Page { title: "Gallery".into(), here: "Gallery", live: None, lead: html! {}, body })
}

fn choosable(image: &GalleryImage) -> Markup {
    let id = format!("{}/{}", image.source, image.entry.file);
    html! {
        div class="choosable" {
            label { input type="checkbox" name="image" value=(id) aria-label={ "Choose: " (parts::alt(image)) }; }
            (parts::tile(image))
        }
    }
}

/// One image with its parameters.
pub(crate) async fn about(State(studio): State<Arc<Studio>>, Path((source, file)): Path<(String, String)>) -> Answer {
    blocking(move || {
        let image = find(&studio, &source, &file)?;
        let asked = Generating::of(&image);
        let same = Generating { seed: image.entry.seed.to_string(), ..asked.clone() };
        let body = html! {
            section class="about" {
                (parts::figure(&image.url(), &parts::alt(&image), &html! {}))
                div {
                    (facts(&image))
                    div class="buttons" {
                        form method="post" action="/generate" {
                            @for (name, value) in asked.pairs() { input type="hidden" name=(name) value=(value); }
                            button class="main" type="submit" { "Again with another seed" }
                        }
                        a class="button" href=(same.url()) { "Use these values" }
                        a class="button" href=(image.url()) download=(image.entry.file) { "Download" }
                        @if let Ok(file) = image.entry.file.parse() { (deletion::link(&Target::Image(image.source.clone(), file))) }
                    }
                }
            }
        };
        Ok(Page { title: "Image".into(), here: "Gallery", live: None, lead: html! {}, body })
    })
    .await?
}

fn facts(image: &GalleryImage) -> Markup {
    let entry = &image.entry;
    let facts = [
        ("prompt", entry.prompt.clone()),
        ("negative prompt", entry.negative_prompt.clone()),
        ("with", image.source.name().to_string()),
        ("seed", entry.seed.to_string()),
        ("steps", entry.steps.to_string()),
        ("guidance scale", entry.guidance_scale.to_string()),
        ("scheduler", entry.scheduler.clone()),
        ("size", format!("{} x {}", entry.width, entry.height)),
        ("scale of the run's LoRA", entry.lora_scale.map_or(String::new(), |scale| scale.to_string())),
        (
            "LoRA",
            entry.loras.iter().map(|lora| lora.rsplit('/').next().unwrap_or_default()).collect::<Vec<_>>().join(", "),
        ),
        ("computed", format!("on {} in {}, {}", entry.device, entry.dtype, ago(entry.time))),
    ];
    html! {
        dl class="facts stacked" {
            @for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) { div { dt { (name) } dd { (value) } } }
        }
    }
}

fn find(studio: &Studio, source: &str, file: &str) -> Answer<GalleryImage> {
    let source = source.parse().map_err(Failure::not_found)?;
    studio.library.image(&source, file).map_err(Failure::not_found)
}

pub(crate) async fn image(
    State(studio): State<Arc<Studio>>,
    Path((source, file)): Path<(String, String)>,
) -> Answer<Response> {
    blocking(move || {
        let image = find(&studio, &source, &file)?;
        let folder = studio.library.images_folder(&image.source)?;
        let path = inside(&folder, &image.entry.file).map_err(Failure::not_found)?;
        files::image(&path).map_err(Failure::not_found)
    })
    .await?
}

/// Images that were chosen, side by side.
pub(crate) async fn beside(State(studio): State<Arc<Studio>>, Query(chosen): Query<Vec<(String, String)>>) -> Answer {
    blocking(move || {
        let chosen = chosen.iter().filter(|(key, _)| key == "image").take(MOST_BESIDE);
        let find = |(_, value): &(String, String)| {
            let (source, file) = value.split_once('/').ok_or_else(|| Failure::not_found("there is no such image"))?;
            find(&studio, source, file)
        };
        let images = chosen.map(find).collect::<Answer<Vec<_>>>()?;
        let body = html! {
            section {
                @if images.len() < 2 { p role="alert" { "Choose two images or more in the gallery." } }
                div class="tiles beside" {
                    @for image in &images { div { (parts::figure(&image.url(), &parts::alt(image), &html! {})) (facts(image)) } }
                }
                p { a href="/gallery" { "Back to the gallery" } }
            }
        };
        Ok(Page { title: "Side by side".into(), here: "Gallery", live: None, lead: html! {}, body })
    })
    .await?
}
