//! A finished run: loading what it has learned, and its model as it was after each stage.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use model_files::BaseModel;
use photos::{Photo, PhotoFolder};
use runs::{ModelFingerprint, SavedRun, Stage, TrainConfig, layout};
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};

use crate::checkpoint::restore;
use crate::session::base_model;
use crate::stage_run::trains;
use crate::subject::initial_embedding;

/// What a finished run has learned, on disk.
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
    saved: SavedRun,
}

impl FinishedRun {
    /// Opens the folder of a run.
    ///
    /// # Errors
    /// When `run` is no run or an unfinished one.
    pub fn open(run: &Path) -> Result<Self> {
        let saved = SavedRun::read(run)?;
        let config = saved.config();
        let (file, unet) = (run.join(layout::EMBEDDING), run.join(layout::UNET));
        if !file.exists() || !run.join(layout::UNET_WEIGHTS).exists() {
            let run = terminal::path(run);
            bail!("the run in {run} is not finished; resume it with `train --out {run} --resume`");
        }
        let unet::Config { cross_attention_dim, .. } = weights::read_config(&unet.join("config.json"))?;
        let (token, embedding) = export::load_embeddings(&file, cross_attention_dim)?;
        ensure!(
            token == config.placeholder,
            "{} holds the token {token}, but the run's is {}",
            file.display(),
            config.placeholder
        );
        Ok(Self { config: config.clone(), unet, embedding, folder: run.to_owned(), saved })
    }

    /// Whether nothing is left to do: a run that was stopped right after its last step has no samples and curves yet, and
    /// keeps its checkpoints.
    pub fn is_complete(&self) -> bool {
        !self.folder.join(layout::CHECKPOINTS).exists()
    }

    /// The same with the base model at another path, if one is given.
    #[must_use]
    pub fn with_model(mut self, model: Option<&Path>) -> Self {
        if let Some(model) = model {
            self.config.model = model.to_owned();
        }
        self
    }

    /// The run's base model, which is where it was, or at the path given since, and has the same contents.
    ///
    /// # Errors
    /// When it is gone; names the files that have changed.
    pub fn base_model(&self) -> Result<BaseModel> {
        let model = base_model(&self.config)
            .context("the base model of the run is not found (--model says where it is now)")?;
        if self.saved.record.base_model.is_some() {
            self.saved.check_base(&ModelFingerprint::of(model.path(), model.files()?)?, model.path())?;
        }
        Ok(model)
    }

    /// What the base model was called when the run started, wherever it is now.
    pub fn base_name(&self) -> String {
        let folder = || self.config.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.saved.record.base_model.as_ref().map_or_else(folder, |base| base.name.clone())
    }

    /// What tells this run from others: its configuration without the paths of the model and the photos.
    ///
    /// # Errors
    /// None in practice: a configuration can always be written as JSON.
    pub fn identity(&self) -> Result<serde_json::Value> {
        self.config.identity()
    }

    /// The photos that the run has learned from, if they are where and as they were.
    ///
    /// # Errors
    /// Names a photo that is missing, new, or has other contents.
    pub fn photos(&self) -> Result<Vec<Photo>> {
        let concept = &self.config.concept;
        let found = PhotoFolder::open(concept).context("the run's photos (--concept says where they are now)")?;
        self.saved.arrange(found.photos, concept)
    }

    /// What could not be checked.
    pub fn note(&self) -> Option<String> {
        self.saved.note()
    }

    /// The pipeline: the run's base model with the learned U-Net and \[V\].
    ///
    /// # Errors
    /// As [`FinishedRun::base_model`], or when a file is damaged.
    pub fn pipeline(&self, to: (Kind, Device)) -> Result<Pipeline> {
        let mut pipeline = Pipeline::with_unet(&self.base_model()?, &self.unet, to)?;
        pipeline.add_placeholder(&self.config.placeholder, &self.embedding)?;
        Ok(pipeline)
    }

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
