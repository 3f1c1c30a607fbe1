//! Everything that decides what a run does.

use std::path::PathBuf;

use options::{Dtype, LearningRateSchedule, ModelOptions, optimizer, regularizer};
use photos::Augmentation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Stage;

/// A training run's configuration; absent keys have the paper's values.
///
/// A class noun of several tokens is read whole; the authors' code takes its first token, as `regularizer.category = "first"`
/// does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Base model: a folder in the diffusers layout, or a single file.
    pub model: PathBuf,
    /// What a single file does not say of itself.
    #[serde(skip_serializing_if = "ModelOptions::is_default")]
    pub model_options: ModelOptions,
    /// Folder with photos of the subject, or a single photo.
    pub concept: PathBuf,
    /// Class noun of the subject, for example "dog".
    pub category: String,
    /// Placeholder token: the name of the new token.
    pub placeholder: String,
    /// Embedding vectors of the placeholder token; 1 in the paper.
    pub vectors: usize,
    /// Training prompt, in which `[V]` stands for the placeholder token and `[category]` for the class noun.
    pub prompt: String,
    /// Seed that all randomness derives from.
    pub seed: u64,
    /// Stage 1: the embedding of `[V]`.
    pub embedding: StageConfig,
    /// Stage 2: the U-Net's cross-attention layers.
    pub cross_attention: StageConfig,
    /// Stage 3: the whole U-Net.
    pub unet: StageConfig,
    /// AdamW's values but the learning rate.
    pub optimizer: optimizer::Config,
    /// How attention is regularised; the weights are each stage's own.
    pub regularizer: RegularizerConfig,
    /// How photos become augmented crops.
    pub augmentation: Augmentation,
    /// Precision of computation: fp32, tf32 or bf16; trained parameters are always fp32.
    pub dtype: Dtype,
    /// Recompute activations in the backward pass instead of keeping them: less memory, a third to a half slower.
    pub gradient_checkpointing: bool,
    /// Make a GPU compute the same bits each time, at some cost in speed; a CPU always does.
    pub deterministic: bool,
    /// Clip the norm of the gradients; the authors' code does not.
    pub max_grad_norm: Option<f64>,
    /// Weigh timesteps by min-SNR-γ (arXiv 2303.09556); the paper does not.
    pub snr_gamma: Option<f64>,
    /// Keep an exponential moving average of the U-Net in stage 3 and use it at the end; the paper does not.
    pub ema: Option<optimizer::EmaConfig>,
    /// Prior preservation (arXiv 2208.12242); the paper has none.
    pub prior: Option<Prior>,
    /// Validation images.
    pub validation: Validation,
    /// Save a checkpoint every N steps and after stages 1 and 2.
    pub checkpoint_every: usize,
}

/// One stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Optimiser steps; 0 leaves the stage out.
    pub steps: usize,
    /// AdamW's learning rate.
    pub learning_rate: f64,
    /// Steps in which the learning rate rises from zero; none in the paper.
    // Left out of records of runs without, which are older than the key.
    #[serde(default, skip_serializing_if = "is_default")]
    pub warm_up: usize,
    /// How the learning rate changes after them; it stays in the paper.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schedule: LearningRateSchedule,
    /// Batch size.
    pub batch_size: usize,
    /// Batches whose gradients make one step.
    #[serde(default = "one")]
    pub gradient_accumulation: usize,
    /// λ_μ: the weight of the squared difference of the attention maps' means.
    pub lambda_mean: f64,
    /// λ_σ: the weight of the squared difference of the attention maps' variances.
    pub lambda_variance: f64,
}

fn one() -> usize {
    1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How attention is regularised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegularizerConfig {
    /// Layer by layer, or all layers pooled.
    pub mode: regularizer::Mode,
    /// The sum or the mean over the batch: all batches of a step, where gradients are accumulated.
    pub batch: regularizer::Batch,
    /// Divide the sum by `gradient_accumulation` too, as the authors' code does: the regulariser then weighs less the more
    /// batches a step is split into.
    pub divide_by_accumulation: bool,
    /// What stands for a class noun of several tokens; also decides what `[V]` starts from.
    pub category: regularizer::Category,
}

/// Prior preservation: class images that the model is not to forget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Prior {
    /// Folder with class images; the run's own if there is none.
    pub folder: Option<PathBuf>,
    /// Number of class images: those that the folder lacks are generated by the base model before training.
    pub images: usize,
    /// Prompt of the class images, in which `[category]` stands for the class noun.
    pub prompt: String,
    /// Weight of the prior loss; 1 in the DreamBooth paper.
    pub weight: f64,
    /// Denoising steps of generated class images.
    pub steps: usize,
}

impl Default for Prior {
    fn default() -> Self {
        let prompt = "a photo of a [category]".to_owned();
        Self { folder: None, images: 100, prompt, weight: 1.0, steps: 50 }
    }
}

/// Validation images; generating them does not change the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Validation {
    /// Generate validation images every N steps; 0 for none.
    pub every: usize,
    /// Prompts, in which `[V]` stands for the placeholder token and `[category]` for the class noun.
    pub prompts: Vec<String>,
    /// Seed of each prompt's image.
    pub seed: u64,
    /// Denoising steps, also of the images that show the finished run.
    pub steps: usize,
    /// Guidance scale, likewise; small models need less than Stable Diffusion's 7.5.
    pub guidance_scale: f64,
    /// Prompt set, or its file, of the images that show the finished run; `none` for no images.
    pub results: String,
}

impl Default for Validation {
    fn default() -> Self {
        let prompts = vec!["a photo of a [V] [category]".to_owned()];
        Self { every: 0, prompts, seed: 0, steps: 25, guidance_scale: 7.5, results: "ours24".to_owned() }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self::paper()
    }
}

impl TrainConfig {
    /// The paper's preset (section 4.3 and the authors' scripts): 60 + 100 + 500 steps, batch 8.
    pub fn paper() -> Self {
        let stage = |steps, learning_rate, lambda_mean, lambda_variance| StageConfig {
            steps,
            learning_rate,
            warm_up: 0,
            schedule: LearningRateSchedule::Constant,
            batch_size: 8,
            gradient_accumulation: 1,
            lambda_mean,
            lambda_variance,
        };
        Self {
            model: PathBuf::new(),
            model_options: ModelOptions::default(),
            concept: PathBuf::new(),
            category: String::new(),
            placeholder: "<new>".to_owned(),
            vectors: 1,
            prompt: "a photo of a [V] [category]".to_owned(),
            seed: 0,
            embedding: stage(60, 1e-3, 0.1, 0.0),
            cross_attention: stage(100, 2e-5, 2.0, 5.0),
            unet: stage(500, 2e-6, 2.0, 5.0),
            optimizer: optimizer::Config::default(),
            regularizer: RegularizerConfig::default(),
            augmentation: Augmentation::default(),
            dtype: Dtype::Fp32,
            gradient_checkpointing: false,
            deterministic: false,
            max_grad_norm: None,
            snr_gamma: None,
            ema: None,
            prior: None,
            validation: Validation::default(),
            checkpoint_every: 100,
        }
    }

    /// The authors' fast preset: stage 3 in 200 steps of batch 4 at a learning rate of 1e-5.
    pub fn fast() -> Self {
        let paper = Self::paper();
        Self { unet: StageConfig { steps: 200, learning_rate: 1e-5, batch_size: 4, ..paper.unet }, ..paper }
    }

    /// The configuration of one stage.
    pub fn stage(&self, stage: Stage) -> &StageConfig {
        match stage {
            Stage::Embedding => &self.embedding,
            Stage::CrossAttention => &self.cross_attention,
            Stage::Unet => &self.unet,
        }
    }

    /// A prompt with the class noun filled in; `[V]` stays for the pipeline to replace.
    pub fn fill(&self, prompt: &str) -> String {
        prompt.replace("[category]", &self.category)
    }
}

impl StageConfig {
    /// The learning rate of a step, counted from 0, as diffusers' `get_scheduler` with `num_warmup_steps` has it.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        if step < self.warm_up {
            return self.learning_rate * step as f64 / self.warm_up as f64;
        }
        let rest = self.steps.saturating_sub(self.warm_up).max(1);
        let progress = ((step - self.warm_up) as f64 / rest as f64).min(1.0);
        self.learning_rate
            * match self.schedule {
                LearningRateSchedule::Constant => 1.0,
                LearningRateSchedule::Linear => 1.0 - progress,
                LearningRateSchedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            }
    }

    /// Whether attention is regularised at all.
    pub fn regularizes(&self) -> bool {
        self.lambda_mean > 0.0 || self.lambda_variance > 0.0
    }
}

/// The JSON schema of a [`TrainConfig`], as [`ConfigLayers::file`](crate::ConfigLayers::file) reads it; each key's description
/// is its documentation.
pub fn config_schema() -> serde_json::Value {
    schemars::schema_for!(TrainConfig).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=6)` of diffusers with a learning rate of 1.
    #[test]
    fn learning_rates_are_diffusers() {
        let rates = |schedule| {
            let stage = StageConfig { steps: 6, learning_rate: 1.0, warm_up: 2, schedule, ..TrainConfig::paper().unet };
            [0, 1, 2, 3, 4, 5].map(|step| (stage.learning_rate_at(step) * 1e6).round() / 1e6)
        };
        assert_eq!(rates(LearningRateSchedule::Constant), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(rates(LearningRateSchedule::Linear), [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]);
        assert_eq!(rates(LearningRateSchedule::Cosine), [0.0, 0.5, 1.0, 0.853_553, 0.5, 0.146_447]);
        let paper = TrainConfig::paper().unet;
        assert_eq!([0, 1, 499].map(|step| paper.learning_rate_at(step)), [paper.learning_rate; 3]);
        // What a configuration without them recorded is what it records now.
        assert!(!serde_json::to_string(&paper).unwrap().contains("warm_up"));
    }

    #[test]
    fn the_schema_describes_every_key() {
        fn undescribed(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
            for (key, value) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{key}");
                // Of a reference, the description stands beside it.
                if value["description"].as_str().is_none_or(str::is_empty) {
                    found.push(path.clone());
                }
                undescribed(&path, value, found);
            }
            for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
                undescribed(name, definition, found);
            }
        }
        let schema = config_schema();
        let mut found = Vec::new();
        undescribed("", &schema, &mut found);
        assert!(found.is_empty(), "{found:?}");
        let config = serde_json::to_value(TrainConfig::paper()).unwrap();
        let described = schema["properties"].as_object().unwrap();
        assert!(config.as_object().unwrap().keys().all(|key| described.contains_key(key)));
    }
}
