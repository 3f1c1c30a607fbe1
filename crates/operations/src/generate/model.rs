//! The model that images are generated with, and by what it is known to be the one of another request.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use photos::{Options, Photo};
use requests::Generate;
use runs::{Validation, layout};
use sampling::Pipeline;
use serde_json::{Value, json};
use tch::{Device, Kind};
use weights::Archive;

use crate::context::{Context, Event};
use crate::{compute, loras, models};

/// A model with everything that a request puts into it.
pub(super) struct LoadedModel {
    pub(super) pipeline: Pipeline,
    /// How its images are generated where a request does not say it.
    pub(super) validation: Validation,
    /// What was to be said when it was loaded.
    pub(super) notes: Vec<String>,
}

impl LoadedModel {
    /// Loads the model of a request whose name of a base model is resolved.
    ///
    /// # Errors
    /// When a file cannot be used; names it.
    pub(super) fn load(request: &Generate, to: (Kind, Device), context: &Context<'_>) -> Result<Self> {
        let notes = RefCell::new(Vec::new());
        let keep = |event: Event| match event {
            Event::Note { text } => notes.borrow_mut().push(text),
            event => context.tell(event),
        };
        let (pipeline, validation) = load(request, to, &Context::new(&keep, context.stop().clone()))?;
        Ok(Self { pipeline, validation, notes: notes.into_inner() })
    }
}

fn load(request: &Generate, to: (Kind, Device), context: &Context<'_>) -> Result<(Pipeline, Validation)> {
    let (mut pipeline, validation) =
        tracing::trace_span!("generate/load").in_scope(|| match (&request.run, &request.model) {
            (Some(folder), model) => {
                let run = models::finished(folder, model.as_deref())?;
                let pipeline = match request.lora_scale {
                    Some(scale) => run.pipeline_with_lora_scale(to, scale).context("--lora-scale")?,
                    None => run.pipeline(to)?,
                };
                Ok((pipeline, run.config.validation))
            }
            (None, Some(model)) => {
                let pipeline = Pipeline::open(&models::open(model, &request.single_file, context)?, to)?;
                Ok((pipeline, models::validation(model)?))
            }
            (None, None) => bail!("give a model with --model, or a training run with --run"),
        })?;
    for file in &request.embeddings {
        add_embedding(&mut pipeline, file, to.1).with_context(|| format!("--embedding {}", terminal::path(file)))?;
    }
    pipeline.set_packed_bytes(compute::packed_bytes(&pipeline));
    tracing::trace_span!("generate/lora").in_scope(|| loras::merge(&mut pipeline, &request.loras, context))?;
    if let Some(path) = &request.reference {
        let shown = || format!("--reference {}", terminal::path(path));
        let photo = Photo::open(path, &Options::default()).with_context(shown)?;
        let side = u32::try_from(pipeline.default_settings().height)?;
        pipeline.set_reference(&photo.square(side)).with_context(shown)?;
    }
    Ok((pipeline, validation))
}

/// Adds what a file has of a token: an embedding, NeTI's mapper or ViCo's blocks.
fn add_embedding(pipeline: &mut Pipeline, file: &Path, device: Device) -> Result<()> {
    let is = |kind: fn(&Archive) -> bool| Archive::open(file).is_ok_and(|archive| kind(&archive));
    if is(neti::is_mapper) {
        pipeline.refuse_sdxl("NeTI's mapper")?;
        let (mapper, token) = neti::Mapper::read(file, methods::mapper_size(pipeline), device)?;
        return methods::add_mapper(pipeline, &mapper, &token);
    }
    if is(vico::is_vico) {
        pipeline.refuse_sdxl("a file of ViCo")?;
        let width = pipeline.text_encoder.config().hidden_size;
        let (blocks, token, rows) = vico::read(file, &pipeline.unet, width, device)?;
        return methods::add_blocks(pipeline, &blocks, (&token, &rows));
    }
    let (token, rows) = ::export::load_embeddings(file, &pipeline.token_widths())?;
    pipeline.add_token(&token, &rows)
}

/// What decides a model: the part of the request that does, and the files as they are.
#[derive(Debug, PartialEq)]
pub(super) struct ModelKey {
    request: Value,
    files: Vec<(PathBuf, Option<FileState>)>,
}

/// A file changes when one of these does: device and inode, bytes, and when its contents and its inode have changed.
type FileState = [i128; 5];

/// The files of a run that decide what it generates.
const OF_RUN: [&str; 8] = [
    layout::CONFIG,
    layout::EMBEDDING,
    layout::UNET_WEIGHTS,
    layout::UNET_PART,
    layout::ADAPTER,
    layout::TEXT_ENCODER_WEIGHTS,
    layout::START,
    layout::REFERENCE,
];

impl ModelKey {
    /// The key of a request whose name of a base model is resolved.
    ///
    /// # Errors
    /// When the run or the model cannot be used.
    pub(super) fn of(request: &Generate, context: &Context<'_>) -> Result<Self> {
        let (base, run) = match (&request.run, &request.model) {
            (Some(folder), model) => (models::finished(folder, model.as_deref())?.base_model()?, Some(folder)),
            (None, Some(model)) => (models::open(model, &request.single_file, context)?, None),
            (None, None) => bail!("give a model with --model, or a training run with --run"),
        };
        let of_run = run.into_iter().flat_map(|run| OF_RUN.map(|file| run.join(file)));
        let named = request.loras.iter().map(|lora| lora.path.clone()).chain(request.embeddings.clone());
        let of_base = base.files()?.into_values().chain([base.path().join(layout::MODEL_CONFIG)]);
        let files = of_base.chain(of_run).chain(named).chain(request.reference.clone());
        let Generate { model, run, loras, lora_scale, embeddings, reference, compute, single_file, .. } = request;
        Ok(Self {
            request: json!([model, run, loras, lora_scale, embeddings, reference, compute, single_file]),
            files: files.map(|file| (file.clone(), state(&file))).collect(),
        })
    }
}

/// None of a file that is absent.
fn state(file: &Path) -> Option<FileState> {
    let found = fs::metadata(file).ok()?;
    let at = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (changed, inode_changed) = (at(found.mtime(), found.mtime_nsec()), at(found.ctime(), found.ctime_nsec()));
    Some([found.dev().into(), found.ino().into(), found.len().into(), changed, inode_changed])
}
