//! Everything that decides what a run does.

use std::path::PathBuf;

use options::{Adapter, Dtype, GenerationSettings, MaskedLoss, ModelOptions, SchedulerKind, optimizer, regularizer};
use photos::{Augmentation, SizeAugmentation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::concept::{Concept, FurtherConcept};
use crate::phase::{Group, Phase, Phases};
use crate::stop::Stop;

/// A training run's configuration; absent keys have the values of AttnDreamBooth's paper.
///
/// A class noun of several tokens is read whole; the authors' code takes its first token, as `regularizer.category = "first"`
/// does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Name of the method, for example `attndreambooth` or `textual-inversion`.
    pub method: String,
    /// Base model: a folder in the diffusers layout, or a single file.
    pub model: PathBuf,
    /// What a single file does not say of itself.
    #[serde(skip_serializing_if = "ModelOptions::is_default")]
    pub model_options: ModelOptions,
    /// Folder with photos of the subject, or a single photo.
    pub concept: PathBuf,
    /// Class noun of the subject, for example "dog".
    pub category: String,
    /// Placeholder token: the name of the new token, or a rare word that the model has.
    pub placeholder: String,
    /// Add the placeholder as a new token; otherwise it is a word that the model has, as DreamBooth's "sks".
    pub new_token: bool,
    /// Further subjects that are learned together with the first: prompts call them by their tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more_concepts: Vec<FurtherConcept>,
    /// Embedding vectors of the placeholder token; 1 in the paper.
    pub vectors: usize,
    /// Word whose embedding the new token starts from; the class noun if there is none.
    pub initial_word: Option<String>,
    /// A finished run, or the file of an embedding or a LoRA, whose values are learned from there on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Training prompt, in which `[V]` stands for the placeholder token and `[category]` for the class noun.
    pub prompt: String,
    /// Prompt templates in place of the one prompt, of which each sample has one at random: the name of a set, or a text file
    /// with one on each line.
    pub templates: Option<String>,
    /// Captions beside the photos, `NAME.txt` or `NAME.caption`, in place of prompt and templates: each photo has its own.
    pub captions: Option<Captions>,
    /// Seed that all randomness derives from.
    pub seed: u64,
    /// What is trained, phase after phase.
    #[schemars(with = "std::collections::BTreeMap<String, Phase>")]
    pub phases: Phases,
    /// How the last phase ends before all of its steps are done; unset, it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Adapter in the U-Net that the group `adapter` trains: LoRA or OFT.
    pub adapter: Option<Adapter>,
    /// AdamW's values but the learning rate.
    pub optimizer: optimizer::Config,
    /// How attention is regularised; the weights are each phase's own.
    pub regularizer: RegularizerConfig,
    /// How photos become augmented crops.
    pub augmentation: Augmentation,
    /// Crops keep the aspect ratios of their photos, in shapes of about the area of a square of `augmentation.resolution`; all of a
    /// batch have one shape.
    pub buckets: bool,
    /// Draw so many augmented crops of each photo once and keep their latents, rather than encode new crops at each step; the authors'
    /// code draws new ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_latents: Option<u32>,
    /// Masks of the subject beside the photos, or their alpha channels: how much the loss counts where.
    pub masks: Option<Masks>,
    /// Show photos small, whole or enlarged, with a loss under a mask, as Custom Diffusion does: in place of crops.
    pub sizes: Option<Sizes>,
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
    /// Keep an exponential moving average of what a phase that trains the whole U-Net trains, and use it at the end; the paper does not.
    pub ema: Option<optimizer::EmaConfig>,
    /// Prior preservation (arXiv 2208.12242); the paper has none.
    pub prior: Option<Prior>,
    /// Show the model another photo of the subject beside each sample, as ViCo does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// Validation images.
    pub validation: Validation,
    /// Save a checkpoint every N steps and after each phase but the last.
    pub checkpoint_every: usize,
    /// Keep the last checkpoint of the finished run, so that it can be extended as if it had been longer.
    pub keep_checkpoint: bool,
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

/// Captions beside photos.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Captions {
    /// The prompt of a photo, in which `[caption]` stands for its caption: `[V]` must stand in one of the two.
    pub template: String,
}

impl Captions {
    /// What stands for a photo's caption.
    pub const CAPTION: &str = "[caption]";
}

impl Default for Captions {
    fn default() -> Self {
        Self { template: Self::CAPTION.to_owned() }
    }
}

/// Masks of the subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Masks {
    /// The least weight of the loss: what a cell of the latents weighs that is black in the mask; a white one weighs 1.
    pub unmasked_weight: f64,
}

impl Default for Masks {
    fn default() -> Self {
        Self { unmasked_weight: 0.1 }
    }
}

/// Photos at different sizes, of which prompts tell (arXiv 2212.04488).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sizes {
    /// How sizes and places are chosen.
    pub augmentation: SizeAugmentation,
    /// Phrases that prompts get for small and large photos: the name of a set, or a JSON file.
    pub phrases: String,
    /// How the squared error within the mask becomes a loss.
    pub masked_loss: MaskedLoss,
}

impl Default for Sizes {
    fn default() -> Self {
        let phrases = "custom-diffusion".to_owned();
        Self { augmentation: SizeAugmentation::default(), phrases, masked_loss: MaskedLoss::default() }
    }
}

/// Another photo of the subject beside each sample, at which the model looks (arXiv 2306.00971).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reference {
    /// Weight of the regulariser of the token's attention in the reference.
    pub attention_weight: f64,
}

impl Default for Reference {
    fn default() -> Self {
        Self { attention_weight: 5e-4 }
    }
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
    /// With them, where the subject acts in an image of the first prompt that names it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attention: bool,
    /// Prompts, in which `[V]` stands for the placeholder token and `[category]` for the class noun.
    pub prompts: Vec<String>,
    /// Seed of each prompt's image.
    pub seed: u64,
    /// Denoising steps, also of the images that show the finished run.
    pub steps: usize,
    /// Guidance scale, likewise; small models need less than Stable Diffusion's 7.5.
    pub guidance_scale: f64,
    /// Scheduler, likewise, by its name in diffusers or a short one such as `ddim`; unset, the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SchedulerKind>,
    /// DDIM's eta, likewise, from 0 to 1; unset, 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// Prompt set, or its file, of the images that show the finished run; `none` for no images.
    pub results: String,
}

impl Default for Validation {
    fn default() -> Self {
        let prompts = vec!["a photo of a [V] [category]".to_owned()];
        let results = "ours24".to_owned();
        Self {
            every: 0,
            attention: false,
            prompts,
            seed: 0,
            steps: 25,
            guidance_scale: 7.5,
            scheduler: None,
            eta: None,
            results,
        }
    }
}

impl Validation {
    /// `settings` with the guidance scale, the scheduler and the η of this run's images; steps and size stay.
    pub fn sampler(&self, settings: &GenerationSettings) -> GenerationSettings {
        let Self { guidance_scale, scheduler, eta, .. } = *self;
        GenerationSettings { guidance_scale, scheduler, eta, ..*settings }
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
        let phase = |group: Group, steps, learning_rate, lambda_mean, lambda_variance| {
            let phase = Phase { lambda_mean, lambda_variance, ..Phase::new([group], steps, learning_rate, 8) };
            (group.name().to_owned(), phase)
        };
        Self {
            method: "attndreambooth".to_owned(),
            model: PathBuf::new(),
            model_options: ModelOptions::default(),
            concept: PathBuf::new(),
            category: String::new(),
            placeholder: "<new>".to_owned(),
            new_token: true,
            more_concepts: Vec::new(),
            vectors: 1,
            initial_word: None,
            init_from: None,
            prompt: "a photo of a [V] [category]".to_owned(),
            templates: None,
            captions: None,
            seed: 0,
            phases: Phases::from([
                phase(Group::Embedding, 60, 1e-3, 0.1, 0.0),
                phase(Group::CrossAttention, 100, 2e-5, 2.0, 5.0),
                phase(Group::Unet, 500, 2e-6, 2.0, 5.0),
            ]),
            stop: None,
            adapter: None,
            optimizer: optimizer::Config::default(),
            regularizer: RegularizerConfig::default(),
            augmentation: Augmentation::default(),
            buckets: false,
            cache_latents: None,
            masks: None,
            sizes: None,
            dtype: Dtype::Fp32,
            gradient_checkpointing: false,
            deterministic: false,
            max_grad_norm: None,
            snr_gamma: None,
            ema: None,
            prior: None,
            reference: None,
            validation: Validation::default(),
            checkpoint_every: 100,
            keep_checkpoint: false,
        }
    }

    /// The authors' fast preset: the U-Net in 200 steps of batch 4 at a learning rate of 1e-5.
    pub fn fast() -> Self {
        let mut paper = Self::paper();
        if let Some((_, unet)) = paper.phases.last_mut() {
            (unet.steps, unet.learning_rate, unet.batch_size) = (200, 1e-5, 4);
        }
        paper
    }

    /// What a method's recipe starts from: the paper's values under another name.
    pub fn of(method: &str) -> Self {
        Self { method: method.to_owned(), ..Self::paper() }
    }

    /// Steps of all phases together.
    pub fn steps(&self) -> usize {
        self.phases.values().map(|phase| phase.steps).sum()
    }

    /// The last phase that has steps: its number from 0, its name and itself.
    pub fn last_phase(&self) -> Option<(usize, &str, &Phase)> {
        let phases = self.phases.iter().enumerate().rev();
        let mut with_steps = phases.filter(|(_, (_, phase))| phase.steps > 0);
        with_steps.next().map(|(number, (name, phase))| (number, name.as_str(), phase))
    }

    /// Whether a phase with steps trains a group.
    pub fn trains(&self, group: Group) -> bool {
        self.phases.values().any(|phase| phase.steps > 0 && phase.trains.contains_key(&group))
    }

    /// All subjects, `[V]` first.
    pub fn concepts(&self) -> Vec<Concept<'_>> {
        let first = Concept {
            category: &self.category,
            placeholder: &self.placeholder,
            initial_word: self.initial_word.as_deref(),
            first: true,
        };
        let further = self.more_concepts.iter().map(|concept| Concept {
            category: &concept.category,
            placeholder: &concept.placeholder,
            initial_word: concept.initial_word.as_deref(),
            first: false,
        });
        std::iter::once(first).chain(further).collect()
    }

    /// How its photos are read: with what is beside them, where it is used.
    pub fn photo_options(&self) -> photos::Options {
        photos::Options { captions: self.captions.is_some(), masks: self.masks.is_some(), ..photos::Options::default() }
    }

    /// A prompt with the class noun filled in; `[V]` stays for the pipeline to replace.
    pub fn fill(&self, prompt: &str) -> String {
        prompt.replace("[category]", &self.category)
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
