//! Base models by name and finished runs, with what is to be said of them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use hub::{Hub, ModelKind};
use model_files::BaseModel;
use options::ModelOptions;
use remote::is_url;
use requests::SingleFile;
use runs::{ConfigLayers, TrainConfig, Validation, Versions};
use trainer::FinishedRun;

use crate::context::Context;
use crate::inputs;

/// The folder or file that a model's name means. A path, there or not, means itself; what is at a URL is downloaded.
pub(crate) fn locate(model: &Path, kind: ModelKind) -> Result<PathBuf> {
    if is_url(model) {
        return inputs::model(model, None);
    }
    let name = model.to_string_lossy();
    let is_path =
        model.is_absolute() || name.starts_with('.') || model.extension().is_some_and(|end| end == "safetensors");
    if is_path || model.exists() {
        return Ok(model.to_owned());
    }
    Ok(Hub::from_env()?.resolve(&name, kind)?.path)
}

/// As [`locate`], of a base model that may be given.
pub(crate) fn located(model: Option<&Path>) -> Result<Option<PathBuf>> {
    model.map(|model| locate(model, ModelKind::Diffusion)).transpose()
}

/// Opens a model; notes how it is read.
pub(crate) fn open(model: &Path, single_file: &SingleFile, context: &Context<'_>) -> Result<BaseModel> {
    let SingleFile { tokenizer, prediction_type, model_config } = single_file.clone();
    // Said before it takes its time.
    let model = &inputs::model(model, Some(context))?;
    let model = BaseModel::open(
        &locate(model, ModelKind::Diffusion)?,
        &ModelOptions { tokenizer, prediction_type, config: model_config },
    )?;
    context.notes(model.notes());
    Ok(model)
}

/// Opens a finished run, whose base model is at `model` if that is given.
pub(crate) fn finished(run: &Path, model: Option<&Path>) -> Result<FinishedRun> {
    Ok(FinishedRun::open(run)?.with_model(located(model)?.as_deref()))
}

/// How a model's author recommends to generate images.
pub(crate) fn validation(model: &Path) -> Result<Validation> {
    Ok(ConfigLayers::of_model(model, &TrainConfig::paper())?.finish()?.validation)
}

/// The versions of what numbers depend on.
pub(crate) fn versions() -> Versions {
    let versions = [("attndreambooth", env!("CARGO_PKG_VERSION")), ("libtorch", libtorch::LIBTORCH_VERSION)];
    versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into()
}
