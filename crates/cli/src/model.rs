//! `--tokenizer`, `--prediction-type` and `--model-config`: what a model in a single file does not say of itself.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use model_files::{BaseModel, ModelOptions, PredictionType};
use serde::Serialize;
use serde_json::Value;

/// What is given besides a `--model` that is a single file.
#[derive(Args, Debug, Clone, Default, Serialize)]
pub(crate) struct ModelArgs {
    /// The folder of the tokenizer of a model in a single file; CLIP's own vocabulary if not given
    #[arg(long, value_name = "FOLDER")]
    tokenizer: Option<PathBuf>,
    /// What a model in a single file predicts: epsilon or v_prediction. Needed for Stable Diffusion 2.x where the file's
    /// metadata (ModelSpec) do not say it; epsilon for 1.x if not given
    #[arg(long, value_name = "TYPE", value_enum)]
    prediction_type: Option<PredictionType>,
    /// A folder in the diffusers layout with the configs of a model in a single file, for those of another geometry than
    /// the published ones; its weights are not read
    #[arg(long, value_name = "FOLDER")]
    model_config: Option<PathBuf>,
}

impl ModelArgs {
    /// The model at `path`, and on standard error how it is read.
    pub(crate) fn open(&self, path: &Path) -> Result<BaseModel> {
        let model = BaseModel::open(path, &self.options())?;
        for note in model.notes() {
            terminal::note!("{note}");
        }
        Ok(model)
    }

    /// Whether any is given.
    pub(crate) fn is_given(&self) -> bool {
        !self.options().is_default()
    }

    fn options(&self) -> ModelOptions {
        let Self { tokenizer, prediction_type, model_config } = self.clone();
        ModelOptions { tokenizer, prediction_type, config: model_config }
    }

    /// Paths and values in a run's configuration.
    pub(crate) fn settings(&self) -> [(&'static str, Option<Value>); 3] {
        // What a run says of itself is true wherever it is read.
        let path = |path: &Option<PathBuf>| {
            let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
            path.as_ref().map(|path| Value::from(absolute(path).display().to_string()))
        };
        [
            ("model_options.tokenizer", path(&self.tokenizer)),
            ("model_options.prediction_type", self.prediction_type.map(|kind| Value::from(kind.to_string()))),
            ("model_options.config", path(&self.model_config)),
        ]
    }
}
