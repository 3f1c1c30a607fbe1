//! Everything that decides what a run does.

use std::path::PathBuf;

use anyhow::Result;
use model_files::{BaseModel, ModelOptions};
use options::Dtype;
use photos::Augmentation;
use serde::{Deserialize, Serialize};

use crate::Stage;

/// A run's configuration; absent keys have the paper's values. A category of several tokens is read whole; the authors'
/// code takes its first token, as `regularizer.category = "first"` does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// The base model: a folder in the diffusers layout, or a single file.
    pub model: PathBuf,
    /// What a single file does not say of itself.
    #[serde(skip_serializing_if = "ModelOptions::is_default")]
    pub model_options: ModelOptions,
    /// The folder with the subject's photos, or a single one.
    pub concept: PathBuf,
    /// The super-category: the word for what the subject is, such as "dog".
    pub category: String,
    /// The name of the new token.
    pub placeholder: String,
    /// How many embedding vectors the new token has; 1 in the paper.
    pub vectors: usize,
    /// The training prompt, in which `[V]` and `[category]` are replaced.
    pub prompt: String,
    /// The seed that all randomness derives from.
    pub seed: u64,
    /// Stage 1: the embedding of \[V\].
    pub embedding: StageConfig,
    /// Stage 2: the U-Net's cross-attention layers.
    pub cross_attention: StageConfig,
    /// Stage 3: the whole U-Net.
    pub unet: StageConfig,
    /// AdamW's values but the learning rate.
    pub optimizer: optimizer::Config,
    /// How attention is compared; the weights stand with each stage.
    pub regularizer: RegularizerConfig,
    /// How photos become training views.
    pub augmentation: Augmentation,
    /// What is computed in; trained parameters are always f32.
    pub dtype: Dtype,
    /// Compute activations again in the backward pass instead of keeping them: less memory, a third to a half slower.
    pub gradient_checkpointing: bool,
    /// A GPU computes the same bits each time, at some cost in speed; a CPU always does.
    pub deterministic: bool,
    /// Clip the gradients' norm; the paper's code does not.
    pub max_grad_norm: Option<f64>,
    /// Weigh timesteps by min-SNR-γ (arXiv 2303.09556); the paper does not.
    pub snr_gamma: Option<f64>,
    /// Keep a running average of the U-Net in stage 3 and use it at the end; the paper does not.
    pub ema: Option<optimizer::EmaConfig>,
    /// Prior preservation (arXiv 2208.12242); the paper does not.
    pub prior: Option<Prior>,
    /// Pictures to look at on the way.
    pub validation: Validation,
    /// Steps between checkpoints; stages 1 and 2 end with one too.
    pub checkpoint_every: usize,
}

/// One stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Optimiser steps; 0 leaves the stage out.
    pub steps: usize,
    /// AdamW's learning rate, constant.
    pub learning_rate: f64,
    /// Photos seen at once.
    pub batch_size: usize,
    /// Batches whose gradients make one step.
    #[serde(default = "one")]
    pub gradient_accumulation: usize,
    /// λ_μ: the weight of the attention means' squared difference.
    pub lambda_mean: f64,
    /// λ_σ: the weight of the attention variances' squared difference.
    pub lambda_variance: f64,
}

fn one() -> usize {
    1
}

/// How attention is compared; see [`regularizer::Config`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegularizerConfig {
    /// Layer by layer, or all layers pooled.
    pub mode: regularizer::Mode,
    /// The sum or the mean over the batch: all batches of a step, where gradients are accumulated.
    pub batch: regularizer::Batch,
    /// Divide the sum by `gradient_accumulation` too, as the authors' code does: the regulariser then weighs less the more
    /// batches a step is split into.
    pub divide_by_accumulation: bool,
    /// What stands for a category of several tokens; also decides what \[V\] starts from.
    pub category: regularizer::Category,
}

/// Pictures of the category that the model is to remember.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prior {
    /// The folder with pictures of the category; the run's folder has one of its own if none is named.
    pub folder: Option<PathBuf>,
    /// How many there must be: what the folder lacks is drawn by the base model, before training, and put into it.
    pub images: usize,
    /// Their prompt, in which `[category]` is replaced.
    pub prompt: String,
    /// The weight of their loss; 1 in the DreamBooth paper.
    pub weight: f64,
    /// Denoising steps of pictures that are drawn.
    pub steps: usize,
}

impl Default for Prior {
    fn default() -> Self {
        let prompt = "a photo of a [category]".to_owned();
        Self { folder: None, images: 100, prompt, weight: 1.0, steps: 50 }
    }
}

/// Pictures to look at on the way; drawing them does not change the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Validation {
    /// Steps between them; 0 for none.
    pub every: usize,
    /// What to draw; `[V]` stands for the subject.
    pub prompts: Vec<String>,
    /// The seed of each prompt's picture.
    pub seed: u64,
    /// Denoising steps, here and where the finished run is shown.
    pub steps: usize,
    /// How strongly prompts count, likewise; small models want less than Stable Diffusion's 7.5.
    pub guidance_scale: f64,
    /// The set of prompts, or their file, that the finished run is shown with; `none` for nothing.
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
    /// The paper's recipe (section 4.3 and the authors' scripts): 60 + 100 + 500 steps, batch 8.
    pub fn paper() -> Self {
        let stage = |steps, learning_rate, lambda_mean, lambda_variance| StageConfig {
            steps,
            learning_rate,
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

    /// The authors' fast recipe: stage 3 in 200 steps of batch 4 at a learning rate of 1e-5.
    pub fn fast() -> Self {
        let paper = Self::paper();
        Self { unet: StageConfig { steps: 200, learning_rate: 1e-5, batch_size: 4, ..paper.unet }, ..paper }
    }

    /// The base model.
    ///
    /// # Errors
    /// As [`BaseModel::open`].
    pub fn base_model(&self) -> Result<BaseModel> {
        BaseModel::open(&self.model, &self.model_options)
    }

    /// What tells one run from others: everything but where the model and the photos are.
    ///
    /// # Errors
    /// None in practice: a configuration can always be written as JSON.
    pub fn identity(&self) -> Result<serde_json::Value> {
        let mut config = serde_json::to_value(self)?;
        crate::saved::without_place(&mut config);
        Ok(config)
    }

    /// The configuration of one stage.
    pub fn stage(&self, stage: Stage) -> &StageConfig {
        match stage {
            Stage::Embedding => &self.embedding,
            Stage::CrossAttention => &self.cross_attention,
            Stage::Unet => &self.unet,
        }
    }

    /// A prompt with the category put in; `[V]` stays for the pipeline to replace.
    pub fn fill(&self, prompt: &str) -> String {
        prompt.replace("[category]", &self.category)
    }
}

impl StageConfig {
    /// Whether attention is regularised at all.
    pub(crate) fn regularizes(&self) -> bool {
        self.lambda_mean > 0.0 || self.lambda_variance > 0.0
    }
}
