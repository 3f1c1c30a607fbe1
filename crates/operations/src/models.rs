//! Base models and finished runs, with what is to be said of them.

use std::path::Path;

use anyhow::Result;
use model_files::BaseModel;
use options::ModelOptions;
use requests::SingleFile;
use serde_json::{Value, json};
use trainer::{ConfigLayers, FinishedRun};

use crate::Context;

/// Opens a model; notes how it is read.
pub(crate) fn open(model: &Path, single_file: &SingleFile, context: &Context<'_>) -> Result<BaseModel> {
    let SingleFile { tokenizer, prediction_type, model_config } = single_file.clone();
    let model = BaseModel::open(model, &ModelOptions { tokenizer, prediction_type, config: model_config })?;
    context.notes(model.notes());
    Ok(model)
}

/// Opens a finished run, whose base model is at `model` if that is given; notes what cannot be checked.
pub(crate) fn finished(run: &Path, model: Option<&Path>, context: &Context<'_>) -> Result<FinishedRun> {
    let run = FinishedRun::open(run)?.with_model(model);
    context.notes(run.note());
    Ok(run)
}

/// The guidance that a model's author recommends.
pub(crate) fn guidance_scale(model: &Path) -> Result<f64> {
    Ok(ConfigLayers::of_model(model)?.finish()?.validation.guidance_scale)
}

/// What records say of the programs that numbers depend on.
pub(crate) fn versions() -> Value {
    json!({ "attndreambooth": env!("CARGO_PKG_VERSION"), "libtorch": libtorch::LIBTORCH_VERSION })
}
