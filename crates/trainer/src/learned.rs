//! Loading what a run has learned.

use std::path::Path;

use anyhow::{Context, Result, bail};
use sampling::{ModelFolder, Pipeline};
use serde::Deserialize;
use tch::{Device, Kind};
use weights::Archive;

use crate::TrainConfig;
use crate::outputs::Outputs;

/// The pipeline of a finished run: its base model, with the learned U-Net and \[V\].
///
/// # Errors
/// When `run` is no run or an unfinished one, or its base model is gone.
pub fn load_run(run: &Path, to: (Kind, Device)) -> Result<Pipeline> {
    #[derive(Deserialize)]
    struct Record {
        config: TrainConfig,
    }
    let shown = run.display();
    let record: Record = weights::read_config(&run.join("config.json"))
        .with_context(|| format!("{shown} is not the folder of a training run"))?;
    let (embedding, unet) = (run.join(Outputs::EMBEDDING), run.join(Outputs::UNET));
    if !embedding.exists() || !unet.exists() {
        bail!("the run in {shown} is not finished; go on with it by `train --out {shown} --resume`");
    }
    let model =
        ModelFolder::open(&record.config.model).with_context(|| format!("the base model of the run in {shown}"))?;
    let mut pipeline = Pipeline::with_unet(&model, &unet, to)?;
    let name = &record.config.placeholder;
    let Some(rows) = Archive::open(&embedding)?.tensor(name)? else {
        bail!("{} has no tensor called {name:?}, the run's new token", embedding.display());
    };
    pipeline.add_placeholder(name, &rows)?;
    Ok(pipeline)
}
