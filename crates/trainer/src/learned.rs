//! Loading what a run has learned.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sampling::{ModelFolder, Pipeline};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::TrainConfig;
use crate::outputs::Outputs;

/// What a finished run has made, on disk.
#[derive(Debug)]
pub struct FinishedRun {
    /// Its configuration.
    pub config: TrainConfig,
    /// The folder of the learned U-Net.
    pub unet: PathBuf,
    /// The embedding [vectors, width] of \[V\], which the configuration calls `placeholder`.
    pub embedding: Tensor,
    /// The run's own folder.
    pub(crate) folder: PathBuf,
}

impl FinishedRun {
    /// Opens the folder of a run.
    ///
    /// # Errors
    /// When `run` is no run or an unfinished one.
    pub fn open(run: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Record {
            config: TrainConfig,
        }
        let shown = run.display();
        let Record { config } = json::read(&run.join("config.json"), "the configuration of a training run")
            .with_context(|| unreadable(run))?;
        let (file, unet) = (run.join(Outputs::EMBEDDING), run.join(Outputs::UNET));
        if !file.exists() || !run.join(Outputs::UNET_WEIGHTS).exists() {
            bail!("the run in {shown} is not finished; go on with it by `train --out {shown} --resume`");
        }
        let unet::Config { cross_attention_dim, .. } = weights::read_config(&unet.join("config.json"))?;
        let (token, embedding) = export::load_embeddings(&file, cross_attention_dim)?;
        ensure!(
            token == config.placeholder,
            "{} holds the token {token}, but the run's is {}",
            file.display(),
            config.placeholder
        );
        Ok(Self { config, unet, embedding, folder: run.to_owned() })
    }

    /// The pipeline: the run's base model with the learned U-Net and \[V\].
    ///
    /// # Errors
    /// When the base model is gone or a file is damaged.
    pub fn pipeline(&self, to: (Kind, Device)) -> Result<Pipeline> {
        let model = ModelFolder::open(&self.config.model).context("the run's base model")?;
        let mut pipeline = Pipeline::with_unet(&model, &self.unet, to)?;
        pipeline.add_placeholder(&self.config.placeholder, &self.embedding)?;
        Ok(pipeline)
    }
}

/// Why a configuration cannot be read: mostly, because another version wrote it.
fn unreadable(run: &Path) -> String {
    let version = || -> Option<String> {
        let record: serde_json::Value = json::parse(std::fs::read(run.join("config.json")).ok()?).ok()?;
        Some(record["versions"]["attndreambooth"].as_str()?.to_owned())
    };
    match (version(), env!("CARGO_PKG_VERSION")) {
        (Some(theirs), ours) if theirs != ours => format!(
            "the run in {} was made by version {theirs}, which this version, {ours}, does not understand: use that \
             version, or train again",
            run.display()
        ),
        _ => format!("{} is not the folder of a training run", run.display()),
    }
}
