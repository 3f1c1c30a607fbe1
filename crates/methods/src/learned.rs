//! What is learned beside the model's own parameters, and the groups that are trained.

use adapters::Adapters;
use anyhow::{Result, ensure};
use libtorch::random;
use neti::Mapper;
use regularizer::Category;
use runs::{Concept, Group, TrainConfig};
use sampling::Pipeline;
use tch::{Kind, Tensor};
use vico::ImageAttention;

/// What a method has added to a pipeline.
#[derive(Debug)]
pub struct Learned {
    /// The placeholder token.
    pub placeholder: String,
    /// Its embedding [vectors, width]: f32, a leaf, which the pipeline's text encoder reads. None where the placeholder is a
    /// word of the model's own.
    pub embedding: Option<Tensor>,
    /// The tokens of further subjects, likewise.
    pub more: Vec<(String, Tensor)>,
    /// Adapters in the U-Net.
    pub adapters: Option<Adapters>,
    /// The positions of \[V\] and of the class noun after it in the training prompt, where attention is regularised in one.
    pub positions: Option<[Vec<i64>; 2]>,
    /// NeTI's mapper.
    pub mapper: Option<Mapper>,
    /// ViCo's blocks.
    pub image_attention: Option<ImageAttention>,
    /// Parameters beside the model's, by name: f32 leaves. Those of the adapters, and what a method adds.
    pub added: Vec<(String, Tensor)>,
}

impl Learned {
    /// Adds the placeholder tokens and the adapter to a pipeline; a token's embedding starts from that of the initial word or the
    /// class noun. Where the placeholder is the model's own, prompts may call it `[V]` from now on.
    ///
    /// # Errors
    /// When the token exists already, the word is not in the vocabulary, or a prompt is too long.
    pub fn start(pipeline: &mut Pipeline, config: &TrainConfig) -> Result<Self> {
        let placeholder = config.placeholder.clone();
        let (mut embedding, mut more) = (None, Vec::new());
        if config.new_token {
            for concept in config.concepts() {
                let rows = initial_embedding(pipeline, config, &concept)?.set_requires_grad(true);
                if embedding.is_none() {
                    pipeline.add_placeholder(concept.placeholder, &rows)?;
                    embedding = Some(rows);
                } else {
                    pipeline.add_token(concept.placeholder, &rows)?;
                    more.push((concept.placeholder.to_owned(), rows));
                }
            }
        } else {
            pipeline.name_subject(&placeholder)?;
        }
        let install =
            |adapter| Adapters::install(&mut pipeline.unet, adapter, random::derive(config.seed, "adapter", 0));
        let adapters = config.adapter.as_ref().map(install).transpose()?;
        let added = adapters.as_ref().map_or_else(Vec::new, Adapters::parameters);
        Ok(Self { placeholder, embedding, more, adapters, positions: None, mapper: None, image_attention: None, added })
    }

    /// The parameters of a group, by name.
    pub fn parameters<'a>(&'a self, pipeline: &'a Pipeline, group: Group) -> Vec<(&'a str, &'a Tensor)> {
        match group {
            Group::Embedding => {
                let first = self.embedding.iter().map(|rows| (self.placeholder.as_str(), rows));
                first.chain(self.more.iter().map(|(name, rows)| (name.as_str(), rows))).collect()
            }
            Group::TextEncoder => pipeline.parameters.text_encoder.iter().collect(),
            Group::KeysValues | Group::CrossAttention | Group::Unet => {
                pipeline.parameters.unet.iter().filter(|(name, _)| group.has_unet(name)).collect()
            }
            Group::Adapter => self.added.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect(),
        }
    }
}

/// [vectors, width] in f32: the embedding of the first token of the initial word, or the mean of its tokens'.
///
/// # Errors
/// When the word is not in the vocabulary.
pub fn initial_embedding(pipeline: &Pipeline, config: &TrainConfig, concept: &Concept<'_>) -> Result<Tensor> {
    let (what, word) = match concept.initial_word {
        Some(word) => ("initial word", word),
        None => ("category", concept.category),
    };
    let encoding = pipeline.tokenizer.encode(word)?;
    // Without the start and the end of the text.
    let ids = &encoding.ids[1..encoding.len - 1];
    // A tokenizer puts the end of the text for what it does not know.
    let ends = [pipeline.tokenizer.bos_id(), pipeline.tokenizer.eos_id()];
    ensure!(
        !ids.is_empty() && !ids.iter().any(|id| ends.contains(id)),
        "the {what} {:?} is not in this model's vocabulary; use another word",
        terminal::shortened(word)
    );
    let ids = match config.regularizer.category {
        Category::First => &ids[..1],
        Category::Mean => ids,
    };
    let mean = pipeline.token_embeddings(ids)?.mean_dim([0i64].as_slice(), true, Kind::Float);
    Ok(mean.repeat([config.vectors as i64, 1]))
}
