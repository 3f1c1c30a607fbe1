//! Models and photos that are given by URL: downloaded once a process, into the user's cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use etcetera::BaseStrategy;
use remote::{Bounds, fetch, is_url};
use requests::TrainOptions;

use crate::context::Context;

/// A diffusers folder has some thirty; a single checkpoint of SDXL has 7 GB. Pickles and other formats are not read, so not downloaded.
const MODEL: Bounds = Bounds { files: 1000, bytes: 64 << 30, endings: &["safetensors", "json", "txt"] };
/// Photos with captions and masks.
const PHOTOS: Bounds = Bounds { files: 10_000, bytes: 16 << 30, endings: &[] };

/// Names the folder for work and downloads.
const VARIABLE: &str = "ATTNDREAMBOOTH_WORK";

/// Where results are computed that go to a URL, and where what comes from one is kept: `ATTNDREAMBOOTH_WORK`, else a folder in the user's
/// cache.
///
/// # Errors
/// When there is neither.
pub(crate) fn work_folder() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        return std::path::absolute(Path::new(&named)).with_context(|| format!("{VARIABLE} is no path"));
    }
    let user = etcetera::base_strategy::Xdg::new().ok();
    let cache =
        user.with_context(|| format!("there is no home to keep files in: {VARIABLE} names a folder"))?.cache_dir();
    Ok(cache.join("attndreambooth/work"))
}

/// The model at a path or a URL on this machine.
pub(crate) fn model(model: &Path, context: Option<&Context<'_>>) -> Result<PathBuf> {
    input(model, &MODEL, context)
}

/// The photos at a path or a URL on this machine.
pub(crate) fn photos(photos: &Path, context: Option<&Context<'_>>) -> Result<PathBuf> {
    input(photos, &PHOTOS, context)
}

/// Downloads what options name by URL, and says so; later calls find it.
pub(crate) fn of_options(options: &TrainOptions, context: &Context<'_>) -> Result<()> {
    if let Some(named) = &options.model {
        model(named, Some(context))?;
    }
    if let Some(named) = &options.concept {
        photos(named, Some(context))?;
    }
    Ok(())
}

fn input(path: &Path, bounds: &Bounds, context: Option<&Context<'_>>) -> Result<PathBuf> {
    static FOUND: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());
    if !is_url(path) {
        return Ok(path.to_owned());
    }
    // What a worker has looked at does not change under it.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(local) = found.get(path) {
        return Ok(local.clone());
    }
    let url = path.to_str().context("a URL is no text")?;
    let local = fetch(url, &work_folder()?.join("inputs"), bounds, &mut |files, bytes| {
        if let Some(context) = context {
            context.message(format!("downloading {files} file(s), {}, from {url}", hub::size(bytes)));
        }
    })?;
    found.insert(path.to_owned(), local.clone());
    Ok(local)
}
