//! `export`: what a run has learned, for other programs.

use std::path::{Path, PathBuf};

use ::export::{Replaced, SingleFile, Unet};
use anyhow::{Result, ensure};
use model_files::BaseModel;
use requests::{Export, ExportFormat, FileDtype};
use runs::Group;
use serde::Serialize;
use tch::{Device, Kind};
use trainer::FinishedRun;
use weights::{Archive, Tensors};

use crate::context::Context;
use crate::models;

/// What was written, and how to use it.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// The folder, or the checkpoint and the file of the embedding.
    pub paths: Vec<PathBuf>,
    /// How other programs use it, in a sentence without its end.
    pub usage: String,
}

pub(crate) fn run(request: &Export, context: &Context<'_>) -> Result<Exported> {
    match request.format() {
        ExportFormat::Diffusers => diffusers(request, context),
        ExportFormat::SingleFile => single_file(request, context),
        ExportFormat::Embedding => embedding(request, context),
    }
}

fn open(request: &Export, context: &Context<'_>) -> Result<(FinishedRun, BaseModel, Components)> {
    let run = models::finished(&request.run, request.model.as_deref())?;
    let base = run.base_model()?;
    let learned = Components::of(&run)?;
    context.notes(::export::notes(&base, &learned.replaced()));
    Ok((run, base, learned))
}

/// What a run has learned in place of the base model's components.
struct Components {
    /// The folder of the U-Net.
    folder: Option<PathBuf>,
    /// The U-Net where only a part of it was trained, adapters merged.
    tensors: Option<Tensors>,
    text_encoder: Option<Tensors>,
}

impl Components {
    fn of(run: &FinishedRun) -> Result<Self> {
        let folder = run.unet();
        let in_part = folder.is_none() && run.groups().iter().any(|group| group.is_of_unet() || *group == Group::Adapter);
        let tensors = || {
            let pipeline = run.pipeline((Kind::Float, Device::Cpu))?;
            let tensors = pipeline.parameters.unet.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
            anyhow::Ok(tensors.collect())
        };
        let text_encoder = run.text_encoder().map(|folder| Archive::open_folder(&folder)?.tensors()).transpose()?;
        Ok(Self { folder, tensors: in_part.then(tensors).transpose()?, text_encoder })
    }

    fn replaced(&self) -> Replaced<'_> {
        let unet = self.folder.as_deref().map(Unet::Folder).or(self.tensors.as_ref().map(Unet::Tensors));
        Replaced { unet, text_encoder: self.text_encoder.as_ref() }
    }
}

fn diffusers(request: &Export, context: &Context<'_>) -> Result<Exported> {
    ensure!(
        request.dtype.is_none(),
        "--dtype is for a single file: a diffusers folder keeps the dtypes of its files, which are loaded as fp32, and \
         from_pretrained(..., torch_dtype=...) converts them; leave out --dtype, or give --format single-file"
    );
    let (run, base, learned) = open(request, context)?;
    let (placeholder, category) = (&run.config.placeholder, &run.config.category);
    let embeddings = run.embedding.as_ref().map(|rows| (placeholder.as_str(), rows));
    ::export::diffusers_folder(&base, &request.out, &learned.replaced(), embeddings)?;
    Ok(Exported {
        paths: vec![request.out.clone()],
        usage: format!("its prompts call the subject {placeholder}, as in \"a photo of a {placeholder} {category}\""),
    })
}

fn single_file(request: &Export, context: &Context<'_>) -> Result<Exported> {
    let kind = match request.dtype.unwrap_or_default() {
        FileDtype::Fp32 => Kind::Float,
        FileDtype::Bf16 => Kind::BFloat16,
        FileDtype::Fp16 => Kind::Half,
    };
    let (run, base, learned) = open(request, context)?;
    let [embedding, usage] = beside(&request.out);
    // Before the gigabytes.
    for path in [&request.out, &embedding, &usage] {
        atomic::ensure_new(path)?;
    }
    let category = &run.config.category;
    let (name, how) = match &run.embedding {
        Some(_) => {
            let name = ::export::name_in_prompts(&embedding);
            let file = terminal::path(embedding.file_name().unwrap_or_default()).to_string();
            let how = format!(
                "put {file} into the folder for embeddings; prompts then call the subject {name} in A1111's web UI, as in \
                 \"a photo of a {name} {category}\", and embedding:{name} in ComfyUI"
            );
            (name, how)
        }
        None => {
            let name = run.config.placeholder.clone();
            let how = format!("prompts call the subject {name}, as in \"a photo of {name} {category}\"");
            (name, how)
        }
    };
    // As ModelSpec calls them.
    let metadata = [("modelspec.trigger_phrase", name.as_str()), ("modelspec.usage_hint", &how)];
    let format = SingleFile { kind, metadata: &metadata, ..SingleFile::default() };
    ::export::single_file(&base, &request.out, &learned.replaced(), &format)?;
    let mut paths = vec![request.out.clone()];
    if let Some(rows) = &run.embedding {
        ::export::save_embeddings(&embedding, request.embedding_form.key(&run.config.placeholder), rows)?;
        paths.push(embedding);
    }
    // A1111's web UI shows the text as the checkpoint's description.
    atomic::write(&usage, format!("To use the subject of this checkpoint, {how}.\n"))?;
    Ok(Exported { paths, usage: how })
}

fn embedding(request: &Export, context: &Context<'_>) -> Result<Exported> {
    ensure!(
        request.dtype.is_none(),
        "--dtype is for a single file: an embedding's file is small and in fp32; leave out --dtype, or give --format \
         single-file"
    );
    ensure!(
        request.out.extension().is_some_and(|extension| extension == "safetensors"),
        "the embedding's file {} must end in .safetensors, by which programs know it",
        terminal::path(&request.out)
    );
    let run = models::finished(&request.run, request.model.as_deref())?;
    atomic::ensure_new(&request.out)?;
    let placeholder = &run.config.placeholder;
    let rows = run.embedding.as_ref().with_context(|| {
        format!("the run in {} has no embedding of its own: its token {placeholder} is a word of the model's", terminal::path(&request.run))
    })?;
    ::export::save_embeddings(&request.out, request.embedding_form.key(placeholder), rows)?;
    let name = ::export::name_in_prompts(&request.out);
    Ok(Exported {
        paths: vec![request.out.clone()],
        usage: format!(
            "put it into the folder for embeddings; prompts then call it {name} in A1111's web UI and embedding:{name} in \
             ComfyUI"
        ),
    })
}

/// The embedding, under a name that prompts can have in them, and the text on how to use it.
fn beside(out: &Path) -> [PathBuf; 2] {
    let stem = ::export::name_in_prompts(out);
    // What ends a name in a prompt, or means something there.
    let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name = stem.chars().map(plain).collect::<String>();
    [out.with_file_name(format!("{name}-embedding.safetensors")), out.with_extension("txt")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embeddings_name_can_stand_in_a_prompt() {
        let names = beside(Path::new("out/my dog <1>.safetensors"));
        assert_eq!(names, ["out/my-dog--1--embedding.safetensors", "out/my dog <1>.txt"].map(PathBuf::from));
    }
}
