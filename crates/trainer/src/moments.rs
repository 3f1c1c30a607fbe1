//! A finished run's model as it was on the way.

use std::path::Path;

use anyhow::{Result, bail};
use runs::{Stage, layout};
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};

use crate::checkpoint::restore;
use crate::subject::initial_embedding;
use crate::{FinishedRun, trains};

impl FinishedRun {
    /// Whether the folder has what [`FinishedRun::pipeline_after`] needs; runs of earlier versions have not kept the
    /// model from after stage 2.
    pub fn keeps(&self, stage: Stage) -> bool {
        stage != Stage::CrossAttention || self.folder.join(layout::CROSS_ATTENTION).exists()
    }

    /// The pipeline as it was after `stage`, or before the first one: then \[V\] is where it started.
    ///
    /// # Errors
    /// When the base model is gone, or a file is damaged or absent.
    pub fn pipeline_after(&self, stage: Option<Stage>, to: (Kind, Device)) -> Result<Pipeline> {
        if stage == Some(Stage::Unet) {
            return self.pipeline(to);
        }
        let mut pipeline = Pipeline::open(&self.base_model()?, to)?;
        if stage == Some(Stage::CrossAttention) {
            load_cross_attention(&pipeline, &self.folder.join(layout::CROSS_ATTENTION))?;
        }
        match stage {
            Some(_) => pipeline.add_placeholder(&self.config.placeholder, &self.embedding)?,
            None => {
                let start = self.start_embedding(&pipeline)?;
                pipeline.add_placeholder(&self.config.placeholder, &start)?;
            }
        }
        Ok(pipeline)
    }

    /// The embedding [vectors, width] that \[V\] started from, f32; `pipeline` has the run's text encoder.
    ///
    /// # Errors
    /// When the category has no token in the model.
    pub fn start_embedding(&self, pipeline: &Pipeline) -> Result<Tensor> {
        initial_embedding(pipeline, &self.config)
    }
}

/// Replaces what stage 2 trains.
fn load_cross_attention(pipeline: &Pipeline, path: &Path) -> Result<()> {
    if !path.exists() {
        bail!(
            "there is no {}: an earlier version made this run and did not keep the U-Net from after stage 2",
            path.display()
        );
    }
    let trained = pipeline.parameters.unet.iter().filter(|(name, _)| trains(Stage::CrossAttention, name));
    restore(&trained.collect::<Vec<_>>(), path)
}
