//! AttnDreamBooth (arXiv 2406.05000): the embedding, the cross-attention, the U-Net, each with a regulariser of attention.

use anyhow::{Context, Result, bail};
use options::Adapter;
use regularizer::AttentionRegularizer;
use runs::{Group, GroupConfig, Phase, TrainConfig};
use sampling::Pipeline;
use unet::AttentionObserver;

use crate::{Learned, LossTerm, Method, Reduction, Step};

/// The paper's method: section 4, and the authors' code where they differ.
#[derive(Debug)]
pub struct AttnDreamBooth;

impl Method for AttnDreamBooth {
    fn name(&self) -> &'static str {
        "attndreambooth"
    }

    fn recipe(&self) -> TrainConfig {
        TrainConfig::paper()
    }

    fn install(&self, pipeline: &mut Pipeline, config: &TrainConfig) -> Result<Learned> {
        let learned = Learned::start(pipeline, config)?;
        // Of captions, each has its own.
        let one_prompt = config.captions.is_none() && regularizes(config);
        let positions = one_prompt.then(|| positions(pipeline, config, &config.fill(&config.prompt))).transpose()?;
        Ok(Learned { positions, ..learned })
    }

    /// Where attention is regularised, \[V\] and right after it the class noun must stand in it.
    fn check_prompt(&self, pipeline: &Pipeline, config: &TrainConfig, prompt: &str) -> Result<()> {
        if regularizes(config) { positions(pipeline, config, prompt).map(|_| ()) } else { Ok(()) }
    }

    /// With the term `attention`, the regulariser, where the phase weighs it.
    fn losses(&self, step: &Step<'_>) -> Result<Vec<LossTerm>> {
        if !step.phase.regularizes() {
            let prediction = step.predict(None)?;
            return step.diffusion(&prediction);
        }
        let mut regularizer = regularizer(step)?;
        let prediction = step.predict(Some(&mut regularizer as &mut dyn AttentionObserver))?;
        let mut terms = step.diffusion(&prediction)?;
        let _span = tracing::trace_span!("train/loss").entered();
        let options = step.config.regularizer;
        let [of_samples, of_batches] = match (options.batch, options.divide_by_accumulation) {
            (regularizer::Batch::Mean, _) => [Reduction::Mean; 2],
            (regularizer::Batch::Sum, true) => [Reduction::Sum, Reduction::Mean],
            (regularizer::Batch::Sum, false) => [Reduction::Sum; 2],
        };
        terms.push(LossTerm { name: "attention", value: regularizer.finish()?.loss, of_samples, of_batches });
        Ok(terms)
    }
}

/// AttnDreamBooth with a LoRA in place of the U-Net's own weights: one adapter over its second and third phase, both of which see
/// the adapted maps. Nobody has published it; its learning rate is DreamBooth-LoRA's.
#[derive(Debug)]
pub struct AttnDreamBoothLora;

impl Method for AttnDreamBoothLora {
    fn name(&self) -> &'static str {
        "attndreambooth-lora"
    }

    fn recipe(&self) -> TrainConfig {
        let mut config = TrainConfig { adapter: Some(Adapter::lora()), ..TrainConfig::of(self.name()) };
        for (_, phase) in config.phases.iter_mut().skip(1) {
            phase.trains = [(Group::Adapter, GroupConfig::default())].into();
            phase.learning_rate = 1e-4;
        }
        config
    }

    fn install(&self, pipeline: &mut Pipeline, config: &TrainConfig) -> Result<Learned> {
        AttnDreamBooth.install(pipeline, config)
    }

    fn check_prompt(&self, pipeline: &Pipeline, config: &TrainConfig, prompt: &str) -> Result<()> {
        AttnDreamBooth.check_prompt(pipeline, config, prompt)
    }

    fn losses(&self, step: &Step<'_>) -> Result<Vec<LossTerm>> {
        AttnDreamBooth.losses(step)
    }
}

/// Whether any phase regularises attention.
fn regularizes(config: &TrainConfig) -> bool {
    config.phases.values().any(Phase::regularizes)
}

/// The regulariser of a batch.
fn regularizer(step: &Step<'_>) -> Result<AttentionRegularizer> {
    let options = step.config.regularizer;
    let config = regularizer::Config {
        mode: options.mode,
        batch: options.batch,
        category: options.category,
        lambda_mean: step.phase.lambda_mean,
        lambda_variance: step.phase.lambda_variance,
    };
    if let [_, _, ..] = step.batch.prompts.as_slice() {
        let of_each = step.batch.prompts.iter().map(|prompt| positions(step.pipeline, step.config, prompt));
        return AttentionRegularizer::for_prompts(&config, &of_each.collect::<Result<Vec<_>>>()?);
    }
    let [placeholder, category] = match (&step.learned.positions, step.batch.prompts.as_slice()) {
        (Some(positions), _) => positions,
        (None, [caption]) => &positions(step.pipeline, step.config, caption)?,
        (None, _) => bail!("attention is regularised, but no phase was to do so"),
    };
    let regularizer = AttentionRegularizer::new(&config, placeholder, category)?;
    // Class images have another prompt.
    Ok(if step.config.prior.is_some() { regularizer.first_samples(step.samples()) } else { regularizer })
}

/// The positions of \[V\] and of the class noun after it in a prompt, in which the class noun is filled in.
fn positions(pipeline: &Pipeline, config: &TrainConfig, prompt: &str) -> Result<[Vec<i64>; 2]> {
    let prompt = pipeline.resolve(prompt)?;
    let shown = terminal::shortened(&prompt);
    let encoding = pipeline.tokenizer.encode(&prompt)?;
    let name = pipeline.tokenizer.expand(&config.placeholder)?;
    let spans = pipeline.tokenizer.spans(&encoding, &name)?;
    let [placeholder] = spans.as_slice() else {
        bail!("the token {} stands {} times in the prompt {shown:?}", config.placeholder, spans.len());
    };
    let categories = pipeline.tokenizer.spans(&encoding, &config.category)?;
    let category = categories.into_iter().find(|span| span.start == placeholder.end).with_context(|| {
        format!("the category {:?} does not follow [V] in {shown:?}", terminal::shortened(&config.category))
    })?;
    Ok([placeholder, &category].map(|span| span.clone().map(|position| position as i64).collect()))
}

#[cfg(test)]
mod tests {
    use golden::fixtures;
    use tch::{Device, Kind};

    use super::*;

    fn found(config: &TrainConfig) -> Result<[Vec<i64>; 2]> {
        let mut pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), (Kind::Float, Device::Cpu)).unwrap();
        Ok(AttnDreamBooth.install(&mut pipeline, config)?.positions.unwrap())
    }

    #[test]
    fn the_class_noun_stands_right_after_the_placeholder() {
        let config = TrainConfig { category: "cat".to_owned(), vectors: 2, ..TrainConfig::paper() };
        let [placeholder, category] = found(&config).unwrap();
        assert_eq!((placeholder, category[0]), (vec![5, 6], 7));
        let error = found(&TrainConfig { prompt: "a [category] that is [V]".to_owned(), ..config }).unwrap_err();
        assert!(error.to_string().contains("\"cat\" does not follow [V]"), "{error}");
    }
}
