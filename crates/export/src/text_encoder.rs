//! A text encoder that knows a new token.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use model_files::{BaseModel, Component};
use serde_json::{Map, Value};
use tch::Tensor;

use crate::embeddings::check_rows;
use crate::staging::{copy_folder, is_weights, new_subfolder};

/// The table's name as the published files and as transformers 5 have it.
const TABLES: [&str; 2] = ["text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"];

/// Writes `tokenizer` and `text_encoder` of the model in `base` to `out`, with the token `placeholder` added, whose
/// embedding(s) are `rows` [vectors, width].
pub(crate) fn write(base: &BaseModel, out: &Path, placeholder: &str, rows: &Tensor) -> Result<()> {
    let mut tokenizer = base.tokenizer()?;
    let mut config: Map<String, Value> = base.config(Component::TextEncoder)?;
    let mut tensors = base.archive(Component::TextEncoder)?.tensors()?;
    let found = TABLES.iter().find(|name| tensors.contains_key(**name));
    let table = found.and_then(|name| tensors.get_mut(*name));
    let table = table.with_context(|| format!("the text encoder in {} has no {}", base.path().display(), TABLES[0]))?;

    let (tokens, width) = table.size2().context("the text encoder's token_embedding is no matrix")?;
    check_rows(&format!("the embedding of {placeholder}"), rows, width)?;
    ensure!(
        tokenizer.embedding_rows() == tokens,
        "the tokenizer in {} has {} tokens, but the text encoder {tokens}: a new token would get a wrong embedding",
        base.path().display(),
        tokenizer.embedding_rows()
    );
    tokenizer.add_placeholder(placeholder, rows.size()[0] as usize)?;
    tokenizer.save(out.join("tokenizer"))?;

    let rows = rows.detach().to_device(table.device()).to_kind(table.kind());
    *table = libtorch::catch(|| Tensor::cat(&[&*table, &rows], 0))?;
    config.insert("vocab_size".to_owned(), tokenizer.embedding_rows().into());
    let out = out.join("text_encoder");
    match base.folder() {
        Some(folder) => {
            let folder = folder.component("text_encoder");
            copy_folder(&folder, &out, |name| name != "config.json" && !is_weights(name))?;
        }
        None => new_subfolder(&out)?,
    }
    atomic::write(&out.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    weights::save(&out.join("model.safetensors"), &tensors)
}
