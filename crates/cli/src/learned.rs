//! `--run` with `--model`: a finished run, and where its base model is now.

use std::path::Path;

use anyhow::Result;
use trainer::FinishedRun;

/// Opens a finished run; says what cannot be checked of its base model, which is at `model` if that is given.
pub(crate) fn open(run: &Path, model: Option<&Path>) -> Result<FinishedRun> {
    let run = FinishedRun::open(run)?.with_model(model);
    if let Some(note) = run.note() {
        terminal::note!("{note}");
    }
    Ok(run)
}

/// The versions of what numbers depend on.
pub(crate) fn versions() -> runs::Versions {
    let versions = [("attndreambooth", env!("CARGO_PKG_VERSION")), ("libtorch", libtorch::LIBTORCH_VERSION)];
    versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into()
}
