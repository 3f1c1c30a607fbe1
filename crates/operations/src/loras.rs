//! LoRA files, and Custom Diffusion's, in a pipeline.

use std::path::Path;

use adapters::{Lora, Networks};
use anyhow::{Context as _, Result, bail};
use requests::LoraFile;
use runs::Group;
use sampling::{Pipeline, PipelineParameters};
use tch::{Kind, Tensor};
use weights::Archive;

use crate::context::Context;

/// Merges LoRA files into the weights of a pipeline, one after the other, and adds the embeddings that they bring.
///
/// Merged they cost nothing per step, however many they are, and weights are packed as ever; as adapters, each would be
/// computed with in every step.
pub(crate) fn merge(pipeline: &mut Pipeline, files: &[LoraFile], context: &Context<'_>) -> Result<()> {
    let mut keys_values: Option<&Path> = None;
    for LoraFile { path, scale } in files {
        // What cannot be read is an error of LoRA files.
        if Archive::open(path).is_ok_and(|archive| ::export::is_custom_diffusion(&archive)) {
            if let Some(other) = keys_values {
                bail!(
                    "{} and {} are files of Custom Diffusion, of which each replaces all keys and values: give one of them, or \
                     merge their runs with `merge`",
                    terminal::path(other),
                    terminal::path(path)
                );
            }
            replace_keys_values(pipeline, path, *scale)?;
            keys_values = Some(path);
            continue;
        }
        let PipelineParameters { unet, text_encoder, text_encoder_2, .. } = &pipeline.parameters;
        let networks = Networks { unet, text_encoder, text_encoder_2: text_encoder_2.as_ref() };
        let lora = Lora::read(path, networks)?;
        lora.merge(networks, *scale).with_context(|| format!("cannot use {}", path.display()))?;
        for (token, rows) in &lora.embeddings {
            let name = free_name(pipeline, token, path);
            add_token(pipeline, &name, rows)
                .with_context(|| format!("cannot use the embedding in {}", path.display()))?;
            let called = if pipeline.subject() == Some(name.as_str()) { format!("[V] or {name}") } else { name };
            context.note(format!("prompts call the subject of {} {called}", path.display()));
        }
    }
    Ok(())
}

/// Moves the keys' and values' weights to those of a file of Custom Diffusion: all the way at a scale of 1.
fn replace_keys_values(pipeline: &Pipeline, path: &Path, scale: f64) -> Result<()> {
    let own: Vec<(&str, &Tensor)> =
        pipeline.parameters.unet.iter().filter(|(name, _)| Group::KeysValues.has_unet(name)).collect();
    let learned = ::export::load_custom_diffusion(path, own.iter().map(|(name, weight)| (*name, weight.size())))?;
    let replace = || {
        for (name, weight) in &own {
            if let Some(learned) = learned.get(*name) {
                let (learned, before) =
                    (learned.to_device(weight.device()).to_kind(Kind::Float), weight.to_kind(Kind::Float));
                let after = if scale == 1.0 { learned } else { &before + (learned - &before) * scale };
                weight.shallow_clone().copy_(&after);
            }
        }
    };
    Ok(libtorch::catch(|| tch::no_grad(replace))?)
}

/// The token's name, or the file's where another one has that.
fn free_name(pipeline: &Pipeline, token: &str, path: &Path) -> String {
    let stem: String = path.file_stem().unwrap_or_default().to_string_lossy().split_whitespace().collect();
    if pipeline.tokenizer.vectors(token).is_empty() { token.to_owned() } else { format!("<{stem}>") }
}

fn add_token(pipeline: &mut Pipeline, name: &str, rows: &Tensor) -> Result<()> {
    match pipeline.subject() {
        None => pipeline.add_placeholder(name, rows),
        Some(_) => pipeline.add_token(name, rows),
    }
}
