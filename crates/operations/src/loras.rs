//! LoRA files in a pipeline.

use std::path::Path;

use adapters::Lora;
use anyhow::{Context as _, Result};
use requests::LoraFile;
use sampling::Pipeline;
use tch::Tensor;

use crate::context::Context;

/// Merges LoRA files into the weights of a pipeline, one after the other, and adds the embeddings that they bring.
///
/// Merged they cost nothing per step, however many they are, and weights are packed as ever; as adapters, each would be
/// computed with in every step.
pub(crate) fn merge(pipeline: &mut Pipeline, files: &[LoraFile], context: &Context<'_>) -> Result<()> {
    for LoraFile { path, scale } in files {
        let (unet, text_encoder) = (&pipeline.parameters.unet, &pipeline.parameters.text_encoder);
        let lora = Lora::read(path, unet, text_encoder)?;
        lora.merge(unet, text_encoder, *scale).with_context(|| format!("cannot use {}", path.display()))?;
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
