//! The new word: its token, its embedding, and where it stands in the prompt.

use anyhow::{Context, Result, ensure};
use regularizer::Category;
use runs::TrainConfig;
use sampling::Pipeline;
use tch::{Kind, Tensor};

/// What is learned, in the model's terms.
#[derive(Debug)]
pub struct Subject {
    /// The embedding [vectors, width] of \[V\]: f32, a leaf, which the pipeline's text encoder reads.
    pub embedding: Tensor,
    /// The prompt's ids [1, positions], on the CPU.
    pub prompt_ids: Tensor,
    /// The positions of \[V\] in the prompt.
    pub placeholder_positions: Vec<i64>,
    /// The positions of the category.
    pub category_positions: Vec<i64>,
}

impl Subject {
    /// Adds the new token to the pipeline; its embedding starts from the category's.
    ///
    /// # Errors
    /// When the token exists already, the prompt is too long or the category is not where it should be.
    pub fn add(pipeline: &mut Pipeline, config: &TrainConfig) -> Result<Self> {
        let embedding = initial_embedding(pipeline, config)?.set_requires_grad(true);
        pipeline.add_placeholder(&config.placeholder, &embedding)?;

        let prompt = pipeline.resolve(&config.fill(&config.prompt))?;
        let shown = terminal::shortened(&prompt);
        let encoding = pipeline.tokenizer.encode(&prompt)?;
        ensure!(
            encoding.truncation.is_none(),
            "the training prompt {shown:?} is longer than the text encoder's {} positions; shorten it",
            pipeline.tokenizer.max_length()
        );
        let name = pipeline.tokenizer.expand(&config.placeholder)?;
        let spans = pipeline.tokenizer.spans(&encoding, &name)?;
        let [placeholder] = spans.as_slice() else {
            anyhow::bail!("the token {} stands {} times in the prompt {shown:?}", config.placeholder, spans.len());
        };
        let categories = pipeline.tokenizer.spans(&encoding, &config.category)?;
        let category = categories.into_iter().find(|span| span.start == placeholder.end).with_context(|| {
            format!("the category {:?} does not follow [V] in {shown:?}", terminal::shortened(&config.category))
        })?;
        let positions = |span: &std::ops::Range<usize>| span.clone().map(|position| position as i64).collect();
        Ok(Self {
            embedding,
            prompt_ids: Tensor::from_slice(&encoding.ids).unsqueeze(0),
            placeholder_positions: positions(placeholder),
            category_positions: positions(&category),
        })
    }
}

/// [vectors, width] in f32: the embedding of the category's first token, or the mean of its tokens'.
pub(crate) fn initial_embedding(pipeline: &Pipeline, config: &TrainConfig) -> Result<Tensor> {
    let encoding = pipeline.tokenizer.encode(&config.category)?;
    // Without the start and the end of the text.
    let ids = &encoding.ids[1..encoding.len - 1];
    // A tokenizer puts the end of the text for what it does not know.
    let ends = [pipeline.tokenizer.bos_id(), pipeline.tokenizer.eos_id()];
    ensure!(
        !ids.is_empty() && !ids.iter().any(|id| ends.contains(id)),
        "the category {:?} is not in this model's vocabulary; use another word",
        terminal::shortened(&config.category)
    );
    let ids = match config.regularizer.category {
        Category::First => &ids[..1],
        Category::Mean => ids,
    };
    let rows = tch::no_grad(|| pipeline.text_encoder.embed(&Tensor::from_slice(ids).unsqueeze(0)))?;
    let mean = rows.to_kind(Kind::Float).mean_dim([1i64].as_slice(), false, Kind::Float);
    Ok(mean.repeat([config.vectors as i64, 1]))
}
