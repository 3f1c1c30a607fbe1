//! What a run has learned as files for other programs.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::extract::{Path, State};
use axum::response::{Redirect, Response};
use maud::{Markup, html};

use super::deletion::{self, Target};
use crate::answer::{Answer, Failure, blocking, see};
use crate::files;
use crate::folder::names;
use crate::jobs::{Job, Kind};
use crate::name::Name;
use crate::parts::button;
use crate::request;
use crate::studio::Studio;

/// The formats that a run is exported in: a word for the address, for people, the file's name, and the program's options.
const EXPORTS: [(&str, &str, &str, &[&str]); 4] = [
    ("diffusers", "Folder for diffusers", "", &["--format=diffusers"]),
    ("single-file", "Single file (A1111, ComfyUI)", ".safetensors", &["--format=single-file", "--dtype=fp16"]),
    ("lora", "LoRA", "-lora.safetensors", &["--format=lora", "--dtype=fp16"]),
    ("embedding", "Embedding", "-embedding-only.safetensors", &["--format=embedding"]),
];

/// The formats, and what is there.
pub(super) fn section(studio: &Studio, run: &Name) -> Markup {
    let (url, folder) = (run.url(), studio.library.exports(run));
    let exported = names(&folder);
    html! {
        section {
            h2 { "For other programs" }
            div class="buttons" { @for (format, name, ..) in EXPORTS { (button(&format!("/runs/{url}/exports/{format}"), name, "")) } }
            @if !exported.is_empty() {
                h3 { "Downloads" }
                ul class="lines" { @for file in &exported {
                    li {
                        a href={ "/runs/" (url) "/exports/" (file.url()) } download { (file) @if folder.join(file.as_str()).is_dir() { ".tar" } }
                        " " (deletion::link(&Target::Export(run.clone(), file.clone())))
                    }
                } }
            }
        }
    }
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
        studio.queue.add(Job::new(Kind::Export, format!("Export {name} ({format})"), Some(name), arguments))?;
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
