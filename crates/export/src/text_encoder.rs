//! The text encoder and the tokenizer, trained or with a new token.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use model_files::{BaseModel, Component};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};
use tokenizer::Tokenizer;
use weights::Tensors;

use crate::components::copied;
use crate::embeddings::check_rows;
use crate::staging::{copy_folder, is_weights, new_subfolder};

/// The table's name as the published files and as transformers 5 have it.
const TABLES: [&str; 2] = ["text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"];

/// Writes the tokenizers and the text encoders of the model in `base` to `out`: with the `trained` parameters in place of the first
/// one's where they are given, and with the tokens added, each its name and its embedding(s) [vectors, width]; of SDXL, whose are as
/// wide as both text encoders together, each gets its columns. The text encoders are written in f32.
pub(crate) fn write(
    base: &BaseModel,
    out: &Path,
    trained: Option<&Tensors>,
    embeddings: &[(&str, &Tensor)],
) -> Result<()> {
    let widths = base.token_widths()?;
    for (placeholder, rows) in embeddings {
        check_rows(&format!("the embedding of {placeholder}"), rows, widths.iter().sum())?;
    }
    let columns = |(at, width): (i64, i64)| -> Vec<(&str, Tensor)> {
        embeddings.iter().map(|(placeholder, rows)| (*placeholder, rows.narrow(1, at, width))).collect()
    };
    let first = Encoder { base, component: Component::TextEncoder, tokenizer: base.tokenizer()?, folder: "tokenizer" };
    first.write(out, trained, &columns((0, widths[0])))?;
    let Some(width) = widths.get(1) else { return Ok(()) };
    let tokenizer = base.second_tokenizer()?;
    let second = Encoder { base, component: Component::TextEncoder2, tokenizer, folder: "tokenizer_2" };
    second.write(out, None, &columns((widths[0], *width)))
}

/// A text encoder and its tokenizer.
struct Encoder<'a> {
    base: &'a BaseModel,
    component: Component,
    tokenizer: Tokenizer,
    /// The tokenizer's.
    folder: &'static str,
}

impl Encoder<'_> {
    fn write(self, out: &Path, trained: Option<&Tensors>, embeddings: &[(&str, Tensor)]) -> Result<()> {
        let Self { base, component, mut tokenizer, folder } = self;
        let mut config: Map<String, Value> = base.config(component)?;
        let mut tensors = match trained {
            Some(trained) => copied(trained),
            None => base.archive(component)?.tensors()?,
        };
        for (placeholder, rows) in embeddings {
            add_token(base, &mut tokenizer, &mut tensors, placeholder, rows)?;
        }
        tokenizer.save(out.join(folder))?;
        // The published config says 2, for which transformers takes the largest id for the end of a text: that of an added token.
        if component == Component::TextEncoder2 && !embeddings.is_empty() {
            config.insert("eos_token_id".to_owned(), tokenizer.eos_id().into());
        }
        if let Some(table) = TABLES.iter().find_map(|name| tensors.get(*name)) {
            config.insert("vocab_size".to_owned(), table.size()[0].into());
        }
        // Learned rows are f32, and no other dtype holds all of them and all of the base model's.
        for tensor in tensors.values_mut().filter(|tensor| tensor.is_floating_point()) {
            *tensor = libtorch::catch(|| tensor.to_kind(Kind::Float))?;
        }
        load_as_f32(&mut config);
        let out = out.join(component.folder());
        match base.folder() {
            Some(folder) => {
                let folder = folder.component(component.folder());
                copy_folder(&folder, &out, |name| name != "config.json" && !is_weights(name))?;
            }
            None => new_subfolder(&out)?,
        }
        atomic::write(&out.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
        weights::save(&out.join(component.weights_file()), &tensors)
    }
}

/// Adds the token `placeholder` with the embedding(s) `rows` [vectors, width].
fn add_token(
    base: &BaseModel,
    tokenizer: &mut Tokenizer,
    tensors: &mut Tensors,
    placeholder: &str,
    rows: &Tensor,
) -> Result<()> {
    let found = TABLES.iter().find(|name| tensors.contains_key(**name));
    let table = found.and_then(|name| tensors.get_mut(*name));
    let table = table.with_context(|| format!("the text encoder in {} has no {}", base.path().display(), TABLES[0]))?;

    let (tokens, width) = table.size2().context("the text encoder's token_embedding is not a matrix")?;
    check_rows(&format!("the embedding of {placeholder}"), rows, width)?;
    let first = tokenizer.embedding_rows();
    ensure!(
        first <= tokens,
        "the tokenizer in {} has {first} tokens, but the text encoder {tokens}: a new token would get a wrong embedding",
        base.path().display()
    );
    tokenizer.add_placeholder(placeholder, rows.size()[0] as usize)?;
    *table = libtorch::catch(|| with_rows(table, first, rows))?;
    Ok(())
}

/// The table [tokens, width] with `rows` from the row `first` on, f32: in place of padding that is there, and after it.
fn with_rows(table: &Tensor, first: i64, rows: &Tensor) -> Tensor {
    let rows = rows.detach().to_device(table.device()).to_kind(Kind::Float);
    let end = first + rows.size()[0];
    let table = table.to_kind(Kind::Float);
    let padding = table.narrow(0, end.min(table.size()[0]), (table.size()[0] - end).max(0));
    Tensor::cat(&[table.narrow(0, 0, first), rows, padding], 0)
}

/// Makes transformers load a component as f32, whatever its files hold, as diffusers loads its own: a pipeline computes in
/// one dtype. (`from_pretrained(..., torch_dtype=...)` still wins.)
pub(crate) fn load_as_f32(config: &mut Map<String, Value>) {
    // transformers writes `dtype` since its release 5, and then reads it first.
    config.shift_remove("dtype");
    config.insert("torch_dtype".to_owned(), "float32".into());
}
