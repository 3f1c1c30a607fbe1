//! Photos: uploading them, and showing them small.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use axum::extract::multipart::{Field, Multipart};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Redirect, Response};
use maud::{Markup, html};
use photos::{Options, PhotoFolder};

use super::deletion::{self, Target};
use crate::answer::{Answer, Failure, blocking, see};
use crate::files;
use crate::folder::{inside, names};
use crate::name::Name;
use crate::parts::field;
use crate::photo_names::{Names, is_beside, is_caption};
use crate::studio::Studio;

/// The most photos that are taken at once, the most files beside them, and the most bytes of each.
const MOST_PHOTOS: usize = 50;
const MOST_BESIDE: usize = 100;
const MOST_BYTES: u64 = 50 << 20;
/// The most bytes of a whole upload.
pub(crate) const MOST_UPLOAD: usize = 1 << 30;

/// Choosing or uploading photos.
pub(super) fn upload(studio: &Studio) -> Markup {
    let sets = studio.library.photo_sets();
    html! {
        section {
            h2 { "Photos" }
            form method="post" action="/photos" enctype="multipart/form-data" id="upload" data-most=(MOST_BYTES) {
                (field("set", "Name of the subject", "Such as my-dog", &html! { input id="set" name="set" required maxlength="60" autocomplete="off"; }))
                label class="drop" for="files" {
                    strong { "Drop photos here, or choose them" }
                    span class="note" id="chosen" aria-live="polite" { "JPEG, PNG, WebP, BMP, GIF or TIFF, up to 50 MB each" }
                    input id="files" name="photos" type="file" multiple required accept="image/*,.tif,.tiff,.txt,.caption";
                }
                p class="note" { "Captions (" code { "photo.txt" } ") and masks (" code { "photo-masklabel.png" } ", white is the subject, or an alpha channel) come along with the photos of their names." }
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
                            (deletion::link(&Target::Photos(set.clone())))
                        }
                    }
                }
            }
        }
    }
}

/// A photo's part of an upload.
pub(crate) async fn add(State(studio): State<Arc<Studio>>, mut form: Multipart) -> Answer<Redirect> {
    let own = studio.library.own("photos");
    // A hidden folder beside the others, gone if anything is wrong.
    let staging = tempfile::TempDir::with_prefix_in(".uploading-", &own)
        .map_err(|error| Failure::new(StatusCode::INSUFFICIENT_STORAGE, format!("photos cannot be stored: {error}")))?;
    let (mut set, mut names, mut beside) = (String::new(), Names::default(), 0);
    let broken = |error| Failure::new(StatusCode::BAD_REQUEST, format!("the upload was cut off: {error}"));
    while let Some(field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("set") => set = field.text().await.map_err(broken)?,
            Some("photos") => {
                let name = field.file_name().unwrap_or_default().to_owned();
                if name.is_empty() {
                    continue;
                }
                let file = names.give(&name);
                beside += usize::from(is_beside(&file));
                if names.given - beside > MOST_PHOTOS || beside > MOST_BESIDE {
                    return Err(Failure::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        format!("these are more than {MOST_PHOTOS} photos: three to six are enough"),
                    ));
                }
                store(field, &staging.path().join(file), &name).await?;
            }
            _ => {}
        }
    }
    let name: Name = set.trim().parse()?;
    if names.given == 0 {
        return Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "there are no photos in the upload: choose three to six",
        ));
    }
    let folder = own.join(name.as_str());
    let url = format!("/teach?photos={}", name.url());
    blocking(move || -> Result<()> {
        // Every photo is decoded once, so that whatever is wrong is said now.
        let read = PhotoFolder::open(staging.path()).map_err(|error| without_place(&error, staging.path()))?;
        // A file whose photo does not come with it is a mistake.
        let mut alone = read.skipped.iter().filter_map(|skipped| skipped.path.file_name()?.to_str());
        if let Some(caption) = alone.find(|name| is_caption(name)) {
            bail!("there is no photo of this name for {caption}");
        }
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

/// What is wrong with photos, without the place of the folder, which is nobody's business.
fn without_place(error: &dyn std::error::Error, folder: &FilePath) -> anyhow::Error {
    let place = folder.display().to_string();
    anyhow::anyhow!(error.to_string().replace(&format!(" in {place}"), "").replace(&place, "that was uploaded"))
}

/// What lies beside the photos of a set.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The caption of each photo, if all have one.
    pub(super) captions: Vec<String>,
    /// Photos with a mask.
    pub(super) masks: usize,
    /// Why what is there cannot be used.
    pub(super) notes: Vec<String>,
}

impl Beside {
    pub(super) fn of(folder: &FilePath) -> Self {
        let names = names(folder);
        let small = Options { max_short_side: Some(256), ..Options::default() };
        let mut beside = Self::default();
        if names.iter().any(|name| is_caption(name.as_str())) {
            match PhotoFolder::open_with(folder, &Options { captions: true, ..small.clone() }) {
                Ok(read) => {
                    beside.captions.extend(read.photos.into_iter().filter_map(|photo| Some(photo.caption?.text)));
                }
                Err(error) => beside.notes.push(without_place(&error, folder).to_string()),
            }
        }
        let named = names.iter().any(|name| is_beside(name.as_str()) && !is_caption(name.as_str()));
        // What may be transparent somewhere.
        let clear = [".png", ".webp", ".tif", ".tiff", ".gif"];
        let may = |name: &Name| clear.iter().any(|end| name.as_str().to_ascii_lowercase().ends_with(end));
        if named || names.iter().any(may) {
            match PhotoFolder::open_with(folder, &Options { masks: true, ..small }) {
                Ok(read) => beside.masks = read.photos.iter().filter(|photo| photo.mask.is_some()).count(),
                Err(error) if named => beside.notes.push(without_place(&error, folder).to_string()),
                Err(_) => {}
            }
        }
        beside
    }
}

pub(crate) async fn thumbnail(
    State(studio): State<Arc<Studio>>,
    Path((set, file)): Path<(Name, String)>,
) -> Answer<Response> {
    blocking(move || {
        let photo = inside(&studio.library.photos(&set)?, &file)?;
        files::thumbnail(&photo)
    })
    .await?
    .map_err(Failure::not_found)
}

pub(crate) async fn first(State(studio): State<Arc<Studio>>, Path(set): Path<Name>) -> Answer<Response> {
    blocking(move || {
        let folder = studio.library.photos(&set)?;
        let first = names(&folder).into_iter().next().context("there are no photos")?;
        files::thumbnail(&inside(&folder, first.as_str())?)
    })
    .await?
    .map_err(Failure::not_found)
}
