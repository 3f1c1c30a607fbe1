//! NeTI (arXiv 2305.15391): another embedding of the new token at each timestep and in each layer, and a textual bypass.

use std::collections::HashMap;

use ::neti::{Config, Mapper, Prompts, nested_dropout};
use anyhow::{Context, Result, bail, ensure};
use clip::ClipTextModel;
use libtorch::random;
use runs::{Group, Phase, Phases, TrainConfig};
use sampling::{Conditioning, Pipeline};
use tch::{Kind, Tensor};
use unet::{KvCache, UNet};

use crate::{Learned, Method, Step, initial_embedding};

/// As the authors' code has it. The token is new, but has no embedding that could be trained or exported: the mapper gives it one.
#[derive(Debug)]
pub struct NeTi;

impl Method for NeTi {
    fn name(&self) -> &'static str {
        "neti"
    }

    fn recipe(&self) -> TrainConfig {
        let phase = Phase { gradient_accumulation: 4, ..Phase::new([Group::Adapter], 1000, 8e-3, 2) };
        TrainConfig {
            new_token: false,
            prompt: "a photo of a [V]".to_owned(),
            templates: Some("photo27".to_owned()),
            phases: Phases::from([("mapper".to_owned(), phase)]),
            ..TrainConfig::of(self.name())
        }
    }

    fn check_sdxl(&self, _config: &TrainConfig) -> Result<()> {
        bail!("the method neti is for Stable Diffusion 1.x and 2.x, but this model is SDXL")
    }

    fn install(&self, pipeline: &mut Pipeline, config: &TrainConfig) -> Result<Learned> {
        check(config)?;
        ensure!(pipeline.subject().is_none(), "this pipeline has learned a subject already; load the base model again");
        let row = initial_embedding(pipeline, config, &config.concepts()[0])?;
        let norm = f64::try_from(row.norm())?;
        let seed = random::derive(config.seed, "mapper", 0);
        let mapper = Mapper::new(&Config::default(), seed, mapper_size(pipeline), norm, pipeline.placement().1)?;
        add_mapper(pipeline, &mapper, &config.placeholder)?;
        Ok(Learned {
            placeholder: config.placeholder.clone(),
            embedding: None,
            more: Vec::new(),
            adapters: None,
            positions: None,
            added: mapper.parameters(),
            mapper: Some(mapper),
            image_attention: None,
        })
    }

    /// Nested dropout: how many numbers are kept, [layers, samples].
    fn draw(&self, seed: u64, layers: usize, samples: usize) -> Option<Tensor> {
        Some(nested_dropout(&Config::default(), seed, layers, samples))
    }

    fn text(&self, step: &Step<'_>, dtype: Kind) -> Result<KvCache> {
        let Step { pipeline, learned, batch, prompt_embeds, .. } = step;
        let mapper = learned.mapper.as_ref().context("NeTI has no mapper")?;
        let (samples, prompts) = (step.samples(), batch.prompts.len() as i64);
        let ids = pipeline.prompt_ids(&batch.prompts)?;
        let for_each = |xs: &Tensor| xs.repeat_interleave_self_int(samples / prompts, 0, None);
        let ids = for_each(&Tensor::from_slice2(&ids));
        let texts = Prompts {
            ids: &ids,
            token: pipeline.tokenizer.id(&learned.placeholder).context("NeTI's token is not known")?,
            timesteps: &batch.timesteps.narrow(0, 0, samples),
            dtype: Kind::Float,
        };
        // What does not name the subject is the same in all layers.
        let class = prompt_embeds.hidden_states.narrow(0, prompts, batch.class_prompts.len() as i64);
        let class = (!batch.class_prompts.is_empty()).then(|| for_each(&class));
        let span = tracing::trace_span!("text_encoder").entered();
        let texts = mapper.texts(&pipeline.text_encoder, &texts, batch.drawn.as_ref())?;
        drop(span);
        each_layer(&pipeline.unet, &texts, |text| {
            match &class {
                Some(class) => Tensor::cat(&[text, class], 0),
                None => text.shallow_clone(),
            }
            .to_kind(dtype)
        })
    }
}

/// What a pipeline's mappers are for: the width of its embeddings, and its cross-attention layers.
pub fn mapper_size(pipeline: &Pipeline) -> (i64, usize) {
    (pipeline.text_encoder.config().hidden_size, pipeline.unet.cross_attention_layers().len())
}

/// Adds a token to a pipeline that has its embeddings from a mapper of the pipeline's [`mapper_size`], whose memory is shared; it is
/// the subject, if the pipeline has none.
///
/// # Errors
/// When there is such a token already, or another mapper.
pub fn add_mapper(pipeline: &mut Pipeline, mapper: &Mapper, token: &str) -> Result<()> {
    // Of no use but to who asks for the hidden states of a prompt without a timestep.
    let row = mapper.typical()?.to_kind(pipeline.placement().0);
    match pipeline.subject() {
        None => pipeline.add_placeholder(token, &row)?,
        Some(_) => pipeline.add_token(token, &row)?,
    }
    let token = pipeline.tokenizer.id(token).context("the token that was added is not known")?;
    pipeline.set_conditioning(Box::new(Conditioner { mapper: mapper.share(), token }))
}

/// What the method cannot do.
fn check(config: &TrainConfig) -> Result<()> {
    let placeholder = terminal::shortened(&config.placeholder);
    ensure!(
        !config.new_token,
        "new_token is true, but the method neti gives {placeholder} another embedding at each timestep and has none to train: set \
         it to false"
    );
    ensure!(
        config.vectors == 1,
        "vectors is {}, but the method neti has one for {placeholder}: set it to 1",
        config.vectors
    );
    ensure!(config.adapter.is_none(), "adapter is set, but what the method neti adds is its mapper: leave adapter out");
    Ok(())
}

/// The mapper in a pipeline that generates images.
#[derive(Debug)]
struct Conditioner {
    mapper: Mapper,
    token: i64,
}

impl Conditioning for Conditioner {
    fn token(&self) -> i64 {
        self.token
    }

    fn project(
        &self,
        text_encoder: &ClipTextModel,
        unet: &UNet,
        ids: &Tensor,
        timesteps: &Tensor,
        dtype: Kind,
    ) -> Result<KvCache> {
        let prompts = Prompts { ids, token: self.token, timesteps, dtype };
        let span = tracing::trace_span!("text_encoder").entered();
        let texts = self.mapper.texts(text_encoder, &prompts, None)?;
        drop(span);
        each_layer(unet, &texts, Tensor::shallow_clone)
    }
}

/// The keys and values of texts that each layer has of its own, in the order of execution, each made ready first.
fn each_layer(unet: &UNet, texts: &[[Tensor; 2]], ready: impl Fn(&Tensor) -> Tensor) -> Result<KvCache> {
    let of_layers: HashMap<&str, &[Tensor; 2]> =
        unet.cross_attention_layers().iter().map(String::as_str).zip(texts).collect();
    unet.project_each(&mut |name| {
        let [keys_from, values_from] = of_layers.get(name).context("a layer has no texts")?;
        Ok([ready(keys_from), ready(values_from)])
    })
}
