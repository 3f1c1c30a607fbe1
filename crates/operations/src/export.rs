//! `export`: what a run has learned, for other programs.

use std::path::{Path, PathBuf};

use ::export::{Replaced, SingleFile, Unet};
use adapters::{Extraction, Sdxl};
use anyhow::{Context as _, Result, bail, ensure};
use model_files::{BaseModel, Component};
use options::LoraKeys;
use requests::{Export, ExportFormat, FileDtype, LoraExport};
use runs::{Concept, Group};
use serde::Serialize;
use tch::{Device, Kind};
use trainer::FinishedRun;
use weights::{Archive, Tensors};

use crate::context::Context;
use crate::models;

/// What was written, and how to use it.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// The folder, or the checkpoint or LoRA and the file of the embedding.
    pub paths: Vec<PathBuf>,
    /// How other programs use it, in a sentence without its end.
    pub usage: String,
}

pub(crate) fn run(request: &Export, context: &Context<'_>) -> Result<Exported> {
    let format = request.format();
    ensure!(
        format == ExportFormat::Lora || request.lora == LoraExport::default(),
        "--rank, --convolutions, --full-rest, --clamp-quantile, --no-bundled-embedding and --lora-keys are for a LoRA: give \
         --format lora, or leave them out"
    );
    match format {
        ExportFormat::Diffusers => diffusers(request, context),
        ExportFormat::SingleFile => single_file(request, context),
        ExportFormat::Embedding => embedding(request),
        ExportFormat::Lora => lora(request, context),
        ExportFormat::CustomDiffusion => custom_diffusion(request),
        ExportFormat::Neti => mapper(request),
        ExportFormat::Vico => image_attention(request),
    }
}

/// The run's base model, and what takes the place of its components.
fn open(run: &FinishedRun, context: &Context<'_>) -> Result<(BaseModel, Components)> {
    let base = run.base_model()?;
    let learned = Components::of(run)?;
    context.notes(::export::notes(&base, &learned.replaced()));
    Ok((base, learned))
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
        ensure!(
            !run.has_mapper(),
            "the run has learned a mapper, which has no place in a model or a LoRA: give --format neti"
        );
        ensure!(
            !run.has_image_attention(),
            "the run has learned blocks beside the model's own, which have no place in a model or a LoRA: give --format vico"
        );
        let folder = run.unet();
        let in_part =
            folder.is_none() && run.groups().iter().any(|group| group.is_of_unet() || *group == Group::Adapter);
        let tensors = || {
            let pipeline = run.pipeline((Kind::Float, Device::Cpu))?;
            let tensors =
                pipeline.parameters.unet.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
            anyhow::Ok(tensors.collect())
        };
        let text_encoder = run.text_encoder().map(|folder| Archive::open_folder(&folder)?.tensors()).transpose()?;
        Ok(Self { folder, tensors: in_part.then(tensors).transpose()?, text_encoder })
    }

    /// The parameters of the U-Net.
    fn into_unet(self) -> Result<Tensors> {
        match (self.folder, self.tensors) {
            (Some(folder), _) => Archive::open_folder(&folder)?.tensors(),
            (None, Some(tensors)) => Ok(tensors),
            (None, None) => {
                bail!("the run has learned an embedding and no change of the U-Net: give --format embedding")
            }
        }
    }

    fn replaced(&self) -> Replaced<'_> {
        let unet = self.folder.as_deref().map(Unet::Folder).or(self.tensors.as_ref().map(Unet::Tensors));
        Replaced { unet, text_encoder: self.text_encoder.as_ref() }
    }
}

fn diffusers(request: &Export, context: &Context<'_>) -> Result<Exported> {
    ensure!(
        request.dtype.is_none(),
        "--dtype is for a single file or a LoRA: a diffusers folder keeps the dtypes of its files, which are loaded as fp32, and \
         from_pretrained(..., torch_dtype=...) converts them; leave out --dtype, or give --format single-file"
    );
    let run = models::finished(&request.run, request.model.as_deref())?;
    let (base, learned) = open(&run, context)?;
    let embeddings = run.embeddings()?;
    let embeddings: Vec<_> = embeddings.iter().map(|(name, rows)| (*name, rows)).collect();
    ::export::diffusers_folder(&base, &request.out, &learned.replaced(), &embeddings)?;
    Ok(Exported { paths: vec![request.out.clone()], usage: usage(&run.config.concepts()) })
}

/// How prompts of a model name its subjects.
pub(crate) fn usage(concepts: &[Concept<'_>]) -> String {
    let names: Vec<&str> = concepts.iter().map(|concept| concept.placeholder).collect();
    let nouns: Vec<String> =
        concepts.iter().map(|concept| format!("a {} {}", concept.placeholder, concept.category)).collect();
    let (subjects, names, nouns) =
        (if names.len() > 1 { "subjects" } else { "subject" }, names.join(" and "), nouns.join(" and "));
    format!("its prompts call the {subjects} {names}, as in \"a photo of {nouns}\"")
}

/// Of a file's tensors.
fn kind(request: &Export) -> Kind {
    match request.dtype.unwrap_or_default() {
        FileDtype::Fp32 => Kind::Float,
        FileDtype::Bf16 => Kind::BFloat16,
        FileDtype::Fp16 => Kind::Half,
    }
}

fn single_file(request: &Export, context: &Context<'_>) -> Result<Exported> {
    let kind = kind(request);
    let run = models::finished(&request.run, request.model.as_deref())?;
    let [embedding, usage] = beside(&request.out);
    // Before the gigabytes.
    for path in [&request.out, &embedding, &usage] {
        atomic::ensure_new(path)?;
    }
    let (base, learned) = open(&run, context)?;
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
    write_beside(request, &run, "checkpoint", how)
}

fn embedding(request: &Export) -> Result<Exported> {
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
    let (key, widths) = (request.embedding_form.key(placeholder), run.base_model()?.token_widths()?);
    ::export::save_embeddings(&request.out, key, run.own_embedding()?, &widths)?;
    let name = ::export::name_in_prompts(&request.out);
    Ok(Exported {
        paths: vec![request.out.clone()],
        usage: format!(
            "put it into the folder for embeddings; prompts then call it {name} in A1111's web UI and embedding:{name} in \
             ComfyUI"
        ),
    })
}

/// The U-Net's change by low rank: a LoRA that was trained as it is, unless another rank is asked for. The embedding is in the file
/// where its keys have a place for it, and beside it.
fn lora(request: &Export, context: &Context<'_>) -> Result<Exported> {
    const RANK: u32 = 64;
    let run = models::finished(&request.run, request.model.as_deref())?;
    let (out, [embedding, usage]) = (&request.out, beside(&request.out));
    ensure_safetensors(out, "a LoRA")?;
    // Before the minutes.
    for path in [out, &embedding, &usage] {
        atomic::ensure_new(path)?;
    }
    let LoraExport { rank, convolutions, full_rest, clamp_quantile, no_bundled_embedding, lora_keys } = request.lora;
    let keys = lora_keys.unwrap_or_default();
    ensure!(
        !(full_rest && keys == LoraKeys::Diffusers),
        "diffusers reads no full changes (.diff): leave out --full-rest, or give --lora-keys kohya"
    );
    let trained = if rank.is_none() { run.lora()? } else { None };
    let mut lora = match trained {
        Some(lora) => lora,
        None => {
            let (base, learned) = open(&run, context)?;
            let rank = rank.unwrap_or(RANK);
            let extraction = Extraction { rank: rank.into(), convolutions, full_rest, clamp_quantile };
            let (before, after) = (base.archive(Component::Unet)?, learned.into_unet()?);
            let mut progress = context.progress("parameters");
            let extracted =
                adapters::extract(&before, &after, &extraction, &mut |done, total| progress.reach(done, total, ""))?;
            context.note(format!(
                "rank {rank} leaves out {} of the change of its layers; of the whole change, {} is left out",
                percent(extracted.left_out_of_layers),
                percent(extracted.left_out)
            ));
            extracted.lora
        }
    };
    let base = run.base_model()?;
    if let [first_width, _] = base.token_widths()?[..] {
        lora.sdxl = Some(Sdxl::new(base.archive(Component::Unet)?.shapes().map(|(name, _)| name), first_width));
    }
    let (placeholder, category) = (&run.config.placeholder, &run.config.category);
    let bundled = keys == LoraKeys::Kohya && !no_bundled_embedding;
    if bundled {
        let rows = run.embedding.as_ref().map(|rows| (placeholder.clone(), rows.shallow_clone()));
        lora.embeddings.extend(rows);
    }
    let file = terminal::path(out.file_name().unwrap_or_default()).to_string();
    let name = ::export::name_in_prompts(&embedding);
    let beside = terminal::path(embedding.file_name().unwrap_or_default()).to_string();
    let how = if run.embedding.is_none() {
        format!(
            "put {file} into the folder for LoRAs; prompts call the subject {placeholder}, as in \"a photo of {placeholder} \
             {category}\""
        )
    } else if bundled {
        format!(
            "put {file} into the folder for LoRAs; with it, prompts of A1111's web UI and of `generate --lora` call the subject \
             {placeholder}, as in \"a photo of a {placeholder} {category}\"; for ComfyUI put {beside} into the folder for \
             embeddings, and call it embedding:{name}"
        )
    } else {
        format!(
            "load_lora_weights loads {file}, and load_textual_inversion {beside}{}; prompts then call the subject {placeholder}, as \
             in \"a photo of a {placeholder} {category}\"",
            if lora.sdxl.is_some() {
                ", of which clip_l and clip_g go to one text encoder and its tokenizer each"
            } else {
                ""
            }
        )
    };
    let metadata = [("modelspec.trigger_phrase", placeholder.as_str()), ("modelspec.usage_hint", &how)];
    lora.write(out, keys, kind(request), &metadata)?;
    write_beside(request, &run, "LoRA", how)
}

/// Checks the request of a file that is always in fp32.
fn plain_file(request: &Export, what: &str) -> Result<()> {
    ensure!(request.dtype.is_none(), "--dtype is for a single file or a LoRA: {what} is in fp32; leave out --dtype");
    ensure_safetensors(&request.out, what)
}

fn ensure_safetensors(out: &Path, what: &str) -> Result<()> {
    ensure!(
        out.extension().is_some_and(|extension| extension == "safetensors"),
        "{} must end in .safetensors, for that is what {what} is",
        terminal::path(out)
    );
    Ok(())
}

/// The keys and values alone, and each token's embedding in a file that is called by the token.
fn custom_diffusion(request: &Export) -> Result<Exported> {
    let out = &request.out;
    plain_file(request, "Custom Diffusion's file")?;
    let run = models::finished(&request.run, request.model.as_deref())?;
    ensure!(
        run.groups().iter().all(|group| matches!(group, Group::Embedding | Group::KeysValues))
            && run.groups().contains(&Group::KeysValues),
        "the run in {} has learned something else than keys and values, which alone have a place in Custom Diffusion's file; \
         give another --format",
        terminal::path(&request.run)
    );
    // As diffusers calls them; a token may have what a file's name may not.
    let file = |token: &str| out.with_file_name(format!("{}.safetensors", token.replace(['/', '\0'], "-")));
    let embeddings: Vec<_> = run.embeddings()?.into_iter().map(|(token, rows)| (token, file(token), rows)).collect();
    // Before the minutes.
    for path in [out].into_iter().chain(embeddings.iter().map(|(_, path, _)| path)) {
        atomic::ensure_new(path)?;
    }
    let pipeline = run.pipeline((Kind::Float, Device::Cpu))?;
    let learned = pipeline.parameters.unet.iter().filter(|(name, _)| Group::KeysValues.has_unet(name));
    ::export::save_custom_diffusion(out, learned)?;
    let mut flags = format!("--lora {}", terminal::path(out));
    let mut paths = vec![out.clone()];
    for (token, path, rows) in embeddings {
        ::export::save_embeddings(&path, request.embedding_form.key(token), &rows, &pipeline.token_widths())?;
        flags += &format!(" --embedding {}", terminal::path(&path));
        paths.push(path);
    }
    Ok(Exported { paths, usage: format!("`generate {flags}` uses them; {}", usage(&run.config.concepts())) })
}

/// NeTI's mapper with its frequencies and all else that it needs.
fn mapper(request: &Export) -> Result<Exported> {
    let out = &request.out;
    plain_file(request, "NeTI's file")?;
    let run = models::finished(&request.run, request.model.as_deref())?;
    atomic::ensure_new(out)?;
    let mapper = run.mapper()?.with_context(|| {
        format!(
            "the run in {} has no mapper, but is of the method {}; give another --format",
            terminal::path(&request.run),
            run.config.method
        )
    })?;
    mapper.write(out, &run.config.placeholder)?;
    let (token, file) = (&run.config.placeholder, terminal::path(out));
    let usage = format!(
        "`generate --embedding {file}` uses it; prompts call the subject {token}, as in \"a photo of a {token}\""
    );
    Ok(Exported { paths: vec![out.clone()], usage })
}

/// ViCo's blocks and the token's embedding.
fn image_attention(request: &Export) -> Result<Exported> {
    let out = &request.out;
    plain_file(request, "ViCo's file")?;
    let run = models::finished(&request.run, request.model.as_deref())?;
    atomic::ensure_new(out)?;
    let (pipeline, blocks) = run.image_attention()?.with_context(|| {
        format!(
            "the run in {} has no blocks of ViCo, but is of the method {}; give another --format",
            terminal::path(&request.run),
            run.config.method
        )
    })?;
    let (token, file) = (&run.config.placeholder, terminal::path(out));
    vico::write(out, &pipeline.unet, &blocks, (token, run.own_embedding()?))?;
    let usage = format!(
        "`generate --embedding {file} --reference PHOTO` uses it with a photo of the subject; prompts call the subject {token}, as in \
         \"a photo of a {token}\""
    );
    Ok(Exported { paths: vec![out.clone()], usage })
}

/// Writes the embedding, where the run has one, and the text on how to use `what` was written; returns all that was.
fn write_beside(request: &Export, run: &FinishedRun, what: &str, how: String) -> Result<Exported> {
    let [embedding, usage] = beside(&request.out);
    let mut paths = vec![request.out.clone()];
    if let Some(rows) = &run.embedding {
        let (key, widths) = (request.embedding_form.key(&run.config.placeholder), run.base_model()?.token_widths()?);
        ::export::save_embeddings(&embedding, key, rows, &widths)?;
        paths.push(embedding);
    }
    // A1111's web UI shows the text as the file's description.
    atomic::write(&usage, format!("To use the subject of this {what}, {how}.\n"))?;
    Ok(Exported { paths, usage: how })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
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
