//! A finished run: loading what it has learned, and its model as it was after each phase.

use std::path::{Path, PathBuf};

use adapters::Lora;
use anyhow::{Context, Result, bail, ensure};
use methods::{Learned, Method};
use model_files::BaseModel;
use neti::Mapper;
use options::Adapter;
use photos::{Photo, PhotoFolder};
use runs::{Group, ModelFingerprint, SavedRun, TrainConfig, layout};
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};
use vico::ImageAttention;
use weights::Archive;

use crate::checkpoint::restore;
use crate::outputs::Outputs;
use crate::phases::groups_until;
use crate::{reference, start};

/// What a finished run has learned, on disk.
#[derive(Debug)]
pub struct FinishedRun {
    /// Its configuration.
    pub config: TrainConfig,
    /// The embedding [vectors, width] of \[V\], which the configuration calls `placeholder`; none where that is a word of the
    /// model's own.
    pub embedding: Option<Tensor>,
    /// The run's own folder.
    folder: PathBuf,
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
        if !Outputs::new(run).learned(config) {
            let run = terminal::path(run);
            bail!("the run in {run} is not finished; resume it with `train --out {run} --resume`");
        }
        let embedding = config.new_token.then(|| embedding(&run.join(layout::EMBEDDING), config)).transpose()?;
        Ok(Self { config: config.clone(), embedding, folder: run.to_owned(), saved })
    }

    /// Whether nothing is left to do: a run that was stopped right after its last step has no samples and curves yet, and
    /// keeps its checkpoints.
    pub fn is_complete(&self) -> bool {
        let at = |name: &str| self.folder.join(name).exists();
        if self.config.keep_checkpoint { at(layout::CURVES) } else { !at(layout::CHECKPOINTS) }
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
        self.check_base(&ModelFingerprint::of(model.path(), model.files()?)?, model.path())?;
        Ok(model)
    }

    /// As [`SavedRun::check_base`].
    pub(crate) fn check_base(&self, found: &ModelFingerprint, model: &Path) -> Result<()> {
        self.saved.check_base(found, model)
    }

    /// The CLIP by which it may have stopped, by its weights, which is not to score it.
    pub fn stop_clip(&self) -> Option<&ModelFingerprint> {
        self.saved.record.stop_clip.as_ref()
    }

    /// The run's own folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The base model when the run started, by its contents.
    pub fn base_fingerprint(&self) -> &ModelFingerprint {
        &self.saved.record.base_model
    }

    /// What the base model was called when the run started, wherever it is now.
    pub fn base_name(&self) -> &str {
        &self.saved.record.base_model.name
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
        self.saved.arrange(0, found.photos, concept)
    }

    /// The embedding of a new token.
    ///
    /// # Errors
    /// When the run's token is a word of the model's own, or has its embeddings from a mapper.
    pub fn own_embedding(&self) -> Result<&Tensor> {
        self.embedding.as_ref().with_context(|| {
            let (run, token) = (terminal::path(&self.folder), &self.config.placeholder);
            match self.has_mapper() {
                true => format!("the run in {run} has no single embedding: a mapper gives its token {token} another at each timestep"),
                false => format!("the run in {run} has no embedding of its own: its token {token} is a word of the model's"),
            }
        })
    }

    /// Whether its token has embeddings from a mapper, as NeTI's.
    pub fn has_mapper(&self) -> bool {
        self.config.method == methods::NeTi.name()
    }

    /// Whether it has learned blocks beside the U-Net's own, as ViCo does.
    pub fn has_image_attention(&self) -> bool {
        self.config.method == methods::ViCo.name()
    }

    /// Its blocks as they were trained, on the CPU, and the pipeline that they are for; none where the run has none.
    ///
    /// # Errors
    /// As [`FinishedRun::pipeline`].
    pub fn image_attention(&self) -> Result<Option<(Pipeline, ImageAttention)>> {
        if !self.has_image_attention() {
            return Ok(None);
        }
        let (pipeline, learned) = self.unsettled((Kind::Float, Device::Cpu), self.files())?;
        Ok(learned.image_attention.map(|blocks| (pipeline, blocks)))
    }

    /// The mapper as it was trained, on the CPU; none where the run has none.
    ///
    /// # Errors
    /// As [`FinishedRun::pipeline`].
    pub fn mapper(&self) -> Result<Option<Mapper>> {
        if !self.has_mapper() {
            return Ok(None);
        }
        Ok(self.unsettled((Kind::Float, Device::Cpu), self.files())?.1.mapper)
    }

    /// The placeholder token of each subject with its embedding [vectors, width], \[V\] first; none where they are words of the
    /// model's own.
    ///
    /// # Errors
    /// When the file of a further subject's embedding is damaged.
    pub fn embeddings(&self) -> Result<Vec<(&str, Tensor)>> {
        let Some(first) = &self.embedding else { return Ok(Vec::new()) };
        let file = self.folder.join(layout::EMBEDDING);
        let further = self.config.more_concepts.iter().map(|concept| {
            let name = concept.placeholder.as_str();
            Ok((name, embedding_of(name, &file, &self.config)?))
        });
        std::iter::once(Ok((self.config.placeholder.as_str(), first.shallow_clone()))).chain(further).collect()
    }

    /// The folder of the learned U-Net, where all of it was trained.
    pub fn unet(&self) -> Option<PathBuf> {
        self.groups().contains(&Group::Unet).then(|| self.folder.join(layout::UNET))
    }

    /// The folder of the learned text encoder, where it was trained.
    pub fn text_encoder(&self) -> Option<PathBuf> {
        self.groups().contains(&Group::TextEncoder).then(|| self.folder.join(layout::TEXT_ENCODER))
    }

    /// The groups that the run has learned.
    pub fn groups(&self) -> Vec<Group> {
        Outputs::groups(&self.config)
    }

    /// The pipeline: the run's base model with everything that was learned, adapters merged into the weights.
    ///
    /// # Errors
    /// As [`FinishedRun::base_model`], or when a file is damaged.
    pub fn pipeline(&self, to: (Kind, Device)) -> Result<Pipeline> {
        self.load(to, self.files(), None)
    }

    /// The same with what the run's LoRA changes multiplied by `scale`: none of it at 0, all of it at 1.
    ///
    /// # Errors
    /// As [`FinishedRun::pipeline`], or when the run has learned no LoRA.
    pub fn pipeline_with_lora_scale(&self, to: (Kind, Device), scale: f64) -> Result<Pipeline> {
        self.load(to, self.files(), Some(scale))
    }

    /// The run's LoRA as it was trained; none where the run has trained no LoRA, or more of the U-Net than that.
    ///
    /// # Errors
    /// As [`FinishedRun::pipeline`].
    pub fn lora(&self) -> Result<Option<Lora>> {
        if !matches!(self.config.adapter, Some(Adapter::Lora { .. }))
            || self.groups().iter().any(|group| group.is_of_unet())
        {
            return Ok(None);
        }
        let (_, learned) = self.unsettled((Kind::Float, Device::Cpu), self.files())?;
        Ok(learned.adapters.as_ref().map(Lora::of))
    }

    /// How many numbers the run has learned, and the bytes of their files.
    ///
    /// # Errors
    /// When a file is absent or damaged.
    pub fn size(&self) -> Result<(u64, u64)> {
        let mut size = (0, 0);
        for (_, file) in self.files() {
            let path = self.folder.join(file);
            let archive = Archive::open(&path)?;
            let numbers = archive.shapes().map(|(_, shape)| shape.iter().product::<i64>().unsigned_abs());
            let bytes = archive.files().map(|file| Ok(std::fs::metadata(file)?.len()));
            let bytes =
                bytes.sum::<std::io::Result<u64>>().with_context(|| format!("cannot read {}", path.display()))?;
            size = (size.0 + numbers.sum::<u64>(), size.1 + bytes);
        }
        Ok(size)
    }

    /// What the finished run has learned, each group in its file.
    fn files(&self) -> Vec<(Group, PathBuf)> {
        self.groups().into_iter().map(|group| (group, PathBuf::from(Outputs::file(group)))).collect()
    }

    /// The pipeline as it was after a phase, or before the first one: then \[V\] is where it started.
    ///
    /// # Errors
    /// When the base model is gone, a file is damaged or absent, or the run has no such phase.
    pub fn pipeline_after(&self, phase: Option<&str>, to: (Kind, Device)) -> Result<Pipeline> {
        let Some(name) = phase else { return self.load(to, Vec::new(), None) };
        let phases = &self.config.phases;
        let number = phases.get_index_of(name).with_context(|| format!("the run has no phase {name:?}"))?;
        if number + 1 == phases.len() {
            return self.pipeline(to);
        }
        // The file of the last phase so far that has changed a group; the finished run's, if no later one does.
        let file = |group: Group| {
            let latest = (0..=number).rev().find(|number| phases[*number].changes(group));
            let latest = latest.filter(|latest| Outputs::repeated(&self.config, *latest).contains(&group));
            match latest.and_then(|latest| phases.get_index(latest)) {
                Some((name, _)) => Outputs::file_after(name, group),
                None => PathBuf::from(Outputs::file(group)),
            }
        };
        let groups = groups_until(&self.config, number);
        self.load(to, groups.into_iter().map(|group| (group, file(group))).collect(), None)
    }

    /// The base model with groups from these files of the run, and what LoRA changes multiplied by a scale.
    fn load(&self, to: (Kind, Device), groups: Vec<(Group, PathBuf)>, lora_scale: Option<f64>) -> Result<Pipeline> {
        let untrained = !groups.iter().any(|(group, _)| *group == Group::Adapter);
        let (mut pipeline, learned) = self.unsettled(to, groups)?;
        if untrained {
            // Blocks as they begin are no part of the base model.
            pipeline.remove_reference_conditioning();
        }
        reference::restore(&mut pipeline, &self.folder)?;
        if let Some(scale) = lora_scale {
            let run = terminal::path(&self.folder);
            let lora = learned.adapters.as_ref().filter(|_| matches!(self.config.adapter, Some(Adapter::Lora { .. })));
            lora.with_context(|| format!("the run in {run} has learned no LoRA whose scale could be set"))?
                .scale(scale)?;
        }
        methods::named(&self.config.method)?.settle(&mut pipeline, &learned)?;
        Ok(pipeline)
    }

    /// The same with adapters beside the weights.
    fn unsettled(&self, to: (Kind, Device), groups: Vec<(Group, PathBuf)>) -> Result<(Pipeline, Learned)> {
        let base = self.base_model()?;
        let whole_unet = groups.iter().any(|(_, file)| file == Path::new(layout::UNET_WEIGHTS));
        let mut pipeline = match whole_unet {
            true => Pipeline::with_unet(&base, &self.folder.join(layout::UNET), to)?,
            false => Pipeline::open(&base, to)?,
        };
        let learned = methods::named(&self.config.method)?.install(&mut pipeline, &self.config)?;
        start::restore(&pipeline, &learned, &self.folder)?;
        for (group, file) in groups {
            if file != Path::new(layout::UNET_WEIGHTS) {
                restore(&learned.parameters(&pipeline, group), &self.folder.join(file))?;
            }
        }
        Ok((pipeline, learned))
    }

    /// The embedding [vectors, width] that \[V\] started from, f32, where it is a new token; `pipeline` has the base model's text
    /// encoder.
    ///
    /// # Errors
    /// When the initial word is not in the vocabulary.
    pub fn start_embedding(&self, pipeline: &Pipeline) -> Result<Tensor> {
        let own = self.folder.join(layout::START);
        if own.exists() {
            return embedding(&own, &self.config);
        }
        methods::initial_embedding(pipeline, &self.config, &self.config.concepts()[0])
    }
}

/// The embedding [vectors, width] of \[V\] in one of a run's files.
fn embedding(file: &Path, config: &TrainConfig) -> Result<Tensor> {
    embedding_of(&config.placeholder, file, config)
}

fn embedding_of(token: &str, file: &Path, config: &TrainConfig) -> Result<Tensor> {
    let rows = export::embedding_in(&Archive::open(file)?, token)?;
    let rows = rows.with_context(|| format!("{} has no token {token}, which is the run's", file.display()))?;
    let size = rows.size();
    ensure!(
        size.len() == 2 && size[0] == config.vectors as i64,
        "{} holds a tensor of shape {size:?}, but the run's token has {} vectors",
        file.display(),
        config.vectors
    );
    Ok(rows.to_kind(Kind::Float))
}

/// The base model that a configuration names.
pub(crate) fn base_model(config: &TrainConfig) -> Result<BaseModel> {
    BaseModel::open(&config.model, &config.model_options)
}
