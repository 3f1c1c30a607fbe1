//! `export`: what a run has learned, for other programs.

use std::path::{Path, PathBuf};

use ::export::{SingleFile, Unet};
use anyhow::{Result, ensure};
use model_files::BaseModel;
use requests::{Export, ExportFormat, FileDtype};
use serde::Serialize;
use tch::Kind;
use trainer::FinishedRun;

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

fn open(request: &Export, context: &Context<'_>) -> Result<(FinishedRun, BaseModel)> {
    let run = models::finished(&request.run, request.model.as_deref(), context)?;
    let base = run.base_model()?;
    context.notes(::export::notes(&base, Some(Unet::Folder(&run.unet))));
    Ok((run, base))
}

fn diffusers(request: &Export, context: &Context<'_>) -> Result<Exported> {
    ensure!(
        request.dtype.is_none(),
        "--dtype is for a single file: a diffusers folder keeps the dtypes of its files, which are loaded as fp32, and \
         from_pretrained(..., torch_dtype=...) converts them; leave out --dtype, or give --format single-file"
    );
    let (run, base) = open(request, context)?;
    let (placeholder, category) = (&run.config.placeholder, &run.config.category);
    let embeddings = Some((placeholder.as_str(), &run.embedding));
    ::export::diffusers_folder(&base, &request.out, Some(Unet::Folder(&run.unet)), embeddings)?;
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
    let (run, base) = open(request, context)?;
    let [embedding, usage] = beside(&request.out);
    // Before the gigabytes.
    for path in [&request.out, &embedding, &usage] {
        atomic::ensure_new(path)?;
    }
    let (name, category) = (::export::name_in_prompts(&embedding), &run.config.category);
    let how = format!(
        "put {} into the folder for embeddings; prompts then call the subject {name} in A1111's web UI, as in \"a \
         photo of a {name} {category}\", and embedding:{name} in ComfyUI",
        terminal::path(embedding.file_name().unwrap_or_default())
    );
    // As ModelSpec calls them.
    let metadata = [("modelspec.trigger_phrase", name.as_str()), ("modelspec.usage_hint", &how)];
    let format = SingleFile { kind, metadata: &metadata, ..SingleFile::default() };
    ::export::single_file(&base, &request.out, Some(Unet::Folder(&run.unet)), &format)?;
    ::export::save_embeddings(&embedding, request.embedding_form.key(&run.config.placeholder), &run.embedding)?;
    // A1111's web UI shows the text as the checkpoint's description.
    atomic::write(&usage, format!("To use the subject of this checkpoint, {how}.\n"))?;
    Ok(Exported { paths: vec![request.out.clone(), embedding], usage: how })
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
    let run = models::finished(&request.run, request.model.as_deref(), context)?;
    atomic::ensure_new(&request.out)?;
    let placeholder = &run.config.placeholder;
    ::export::save_embeddings(&request.out, request.embedding_form.key(placeholder), &run.embedding)?;
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
