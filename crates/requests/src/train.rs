//! `train`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use options::{DeviceChoice, Dtype, LearningRateSchedule};
use serde::{Deserialize, Serialize};

use crate::{AddedConcept, Profiling, Seed, Share, SingleFile, bounded};

/// The names of all methods.
pub const METHODS: [&str; 11] = [
    "attndreambooth",
    "attndreambooth-lora",
    "textual-inversion",
    "dreambooth",
    "ti-db",
    "custom-diffusion",
    "oft",
    "coft",
    "lora",
    "neti",
    "vico",
];

/// In place of a set of prompts.
pub const NO_RESULTS: &str = "none";

/// Learn a subject from a few photos
///
/// AttnDreamBooth, the default method, has three phases: the first learns the embedding of a new token, the second tunes the
/// U-Net's cross-attention, the third the whole U-Net. Unset options come from the method's recipe. Every value of the configuration, as `config print` shows it, can be set in a TOML or JSON
/// file (--config) and with --set; flags win over the file.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
#[command(args_override_self = true)]
pub struct Train {
    /// What decides the run's configuration.
    #[command(flatten)]
    #[serde(flatten)]
    pub options: TrainOptions,
    /// Folder of the run: new or empty, or with --resume the run's own
    ///
    /// Unset, runs/NAME after the photos' folder: the first such name that is free (-2, -3, ...), with --resume the last one
    /// that is there.
    #[arg(long, value_name = "FOLDER", alias = "output-dir", help_heading = "Run options")]
    pub out: Option<PathBuf>,
    /// Resume the run in --out from its last checkpoint
    #[arg(long, help_heading = "Run options")]
    #[serde(default)]
    pub resume: bool,
    /// Go on from the end of this finished run, in a new folder: needs --extend-steps
    ///
    /// The configuration is that run's; what else is given changes it. The optimiser goes on where the run was trained with
    /// --keep-checkpoint, and starts anew otherwise.
    #[arg(
        long,
        value_name = "RUN",
        requires = "extend_steps",
        conflicts_with = "resume",
        help_heading = "Run options"
    )]
    pub extend: Option<PathBuf>,
    /// Steps that are added to the last phase of the run in --extend
    #[arg(long, value_name = "N", value_parser = steps, requires = "extend", help_heading = "Run options")]
    pub extend_steps: Option<usize>,
    /// Learn each subject of this TOML or CSV file in a run of its own, in the folder NAME of --out
    ///
    /// A subject has photos, a category and where these do not tell it a name, and any option of train under its name in JSON
    /// (learning_rate). Options on the command line hold for all others. Finished runs are skipped, interrupted ones resumed, and one
    /// that fails does not stop the others; processes and machines that share --out share the work. --out is runs/FILE where unset,
    /// and may be a URL (s3://, gs://, az://, file://): runs are then made in a folder here and uploaded when they are finished.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["concept", "add_concept", "resume", "extend", "dry_run", "init_from"],
        help_heading = "Run options"
    )]
    pub batch: Option<PathBuf>,
    /// Which subjects of the batch.
    #[command(flatten)]
    #[serde(flatten)]
    pub share: Share,
    /// Check everything, say what memory, disk and time to expect, and write nothing
    #[arg(long, help_heading = "Run options")]
    #[serde(default)]
    pub dry_run: bool,
    /// With --dry-run, write the first augmented crops into this PNG file
    #[arg(long, value_name = "FILE", requires = "dry_run", help_heading = "Run options")]
    pub contact_sheet: Option<PathBuf>,
    /// Device to compute on: auto, cpu, cuda or cuda:N
    #[arg(
        long,
        env = "ATTNDREAMBOOTH_DEVICE",
        hide_env_values = true,
        default_value_t,
        help_heading = "Computing options"
    )]
    #[serde(default)]
    pub device: DeviceChoice,
    /// Whether to say where the time went.
    #[command(flatten)]
    #[serde(flatten)]
    pub profiling: Profiling,
}

impl Train {
    /// The folder of the run.
    pub fn folder(&self) -> PathBuf {
        if let Some(out) = &self.out {
            return out.clone();
        }
        let name = self
            .extend
            .as_deref()
            .or(self.options.concept.as_deref())
            .or(self.options.config.as_deref())
            .map_or_else(|| "subject".to_owned(), name);
        let first = format!("runs/{name}");
        let numbered = (2..).map(|number| format!("runs/{name}-{number}"));
        let mut folders = std::iter::once(first.clone()).chain(numbered);
        match self.resume {
            true => folders.take_while(|folder| Path::new(folder).exists()).last().unwrap_or(first),
            false => folders.find(|folder| !Path::new(folder).exists()).unwrap_or(first),
        }
        .into()
    }
}

/// The name of a folder of photos; of a single photo, that of its folder and its own, such as `penguin-01`.
fn name(concept: &Path) -> String {
    let parts = match concept.is_file() {
        true => vec![concept.parent().and_then(Path::file_name), concept.file_stem()],
        false => vec![concept.file_name()],
    };
    let parts: Vec<_> = parts.into_iter().flatten().map(|part| part.to_string_lossy()).collect();
    if parts.is_empty() { "subject".to_owned() } else { parts.join("-") }
}

/// What decides the configuration of a run.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Base model: a name, a folder in the diffusers layout, or a .safetensors checkpoint of Stable Diffusion 1.x, 2.x or XL
    ///
    /// With --resume, its present place.
    #[arg(long, alias = "pretrained-model-name-or-path")]
    pub model: Option<PathBuf>,
    /// Folder with photos of the subject, or a single photo; with --resume, their present place
    #[arg(long, value_name = "PHOTOS", visible_alias = "instance-data-dir", alias = "train-data-dir")]
    pub concept: Option<PathBuf>,
    /// Class noun of the subject, for example "dog"
    #[arg(long, value_name = "NOUN", visible_alias = "class-noun")]
    pub category: Option<String>,
    /// A further subject to learn in the same run, its photos and its class noun; can be repeated
    ///
    /// Prompts call it by its token, that of --concept with the next number: `<new2>` after `<new>` or `<new1>`. AttnDreamBooth learns
    /// one subject a run.
    #[arg(long, value_name = "PHOTOS:NOUN")]
    #[serde(default)]
    pub add_concept: Vec<AddedConcept>,
    /// Method: attndreambooth, attndreambooth-lora, textual-inversion, dreambooth, ti-db, custom-diffusion, oft, coft, lora,
    /// neti or vico [default: attndreambooth]
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Preset of AttnDreamBooth to start from
    ///
    /// Unset, the model's own values for the method (attndreambooth.json in its folder), else the method's.
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// TOML or JSON file with values of the configuration; a run's config.json does as well
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One value of the configuration, for example phases.unet.steps=200; can be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    #[serde(default)]
    pub set: Vec<String>,
    /// Start from the embedding and the LoRA (or ViCo's blocks) of a finished run, or of a file
    #[arg(long, value_name = "RUN|FILE", help_heading = "Training options")]
    pub init_from: Option<PathBuf>,
    /// Steps of the last phase, for most methods the only one
    #[arg(long, value_name = "N", visible_alias = "max-train-steps", help_heading = "Training options")]
    pub steps: Option<usize>,
    /// End the last phase where its gain levels out, with the snapshot of that point; its steps are then the most
    ///
    /// auto measures the loss on a fixed batch relative to the base model, by timesteps. dvar is for methods that train nothing
    /// but an embedding: it ends where that loss hardly varies any more. [stop] of the configuration has their values.
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Training options")]
    pub stop: Option<StopKind>,
    /// A CLIP for --stop auto: also end before images follow their prompts too little; never the CLIP that scores them
    #[arg(long, value_name = "FOLDER", requires = "stop", help_heading = "Training options")]
    pub stop_clip: Option<PathBuf>,
    /// The least text alignment that this CLIP may find, as a part of the base model's; unset, 0.8
    #[arg(long, value_name = "PART", value_parser = part, requires = "stop_clip", help_heading = "Training options")]
    pub stop_floor: Option<f64>,
    /// Learning rate of the last phase
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Training options")]
    pub learning_rate: Option<f64>,
    /// Steps and learning rates of AttnDreamBooth's phases.
    #[command(flatten)]
    #[serde(flatten)]
    pub phases: PhaseFlags,
    /// Also train the text encoder in the last phase
    #[arg(long, help_heading = "Training options")]
    #[serde(default)]
    pub train_text_encoder: bool,
    /// Rank of LoRA's matrices
    #[arg(long, value_name = "N", value_parser = bounded::rank, visible_alias = "network-dim", help_heading = "Training options")]
    pub rank: Option<u32>,
    /// Steps in which the learning rate of each phase rises from zero
    #[arg(long, value_name = "N", visible_alias = "lr-warmup-steps", help_heading = "Training options")]
    pub warm_up: Option<usize>,
    /// How the learning rate of each phase changes after its warm-up
    #[arg(long, value_enum, visible_alias = "lr-scheduler", help_heading = "Training options")]
    pub schedule: Option<LearningRateSchedule>,
    /// Batch size of all phases
    #[arg(long, value_name = "N", visible_alias = "train-batch-size", help_heading = "Training options")]
    pub batch_size: Option<usize>,
    /// Batches whose gradients make one step, in all phases
    #[arg(long, value_name = "N", alias = "gradient-accumulation-steps", help_heading = "Training options")]
    pub gradient_accumulation: Option<usize>,
    /// Seed of everything random; -1 for a random one, which is shown
    #[arg(long, allow_negative_numbers = true, help_heading = "Training options")]
    pub seed: Option<Seed>,
    /// Side of the augmented crops in pixels; unset, what the model was trained for
    #[arg(long, value_name = "PIXELS", help_heading = "Training options")]
    pub resolution: Option<u32>,
    /// What is used of what lies beside the photos.
    #[command(flatten)]
    #[serde(flatten)]
    pub photos: PhotoFlags,
    /// Precision of computation; parameters and losses are always fp32
    #[arg(long, value_parser = training_dtype, value_name = "DTYPE", visible_alias = "mixed-precision", help_heading = "Computing options")]
    pub dtype: Option<Dtype>,
    /// Compute activations again in the backward pass: less memory, slower
    #[arg(long, help_heading = "Computing options")]
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// On a GPU, the same bits each time, at some cost in speed
    #[arg(long, help_heading = "Computing options")]
    #[serde(default)]
    pub deterministic: bool,
    /// Also learn images of the class noun, so that the model does not forget it (DreamBooth)
    #[arg(long, alias = "with-prior-preservation", help_heading = "Prior preservation")]
    #[serde(default)]
    pub prior_preservation: bool,
    /// Images of the class noun; the base model generates those that the folder lacks
    #[arg(long, value_name = "N", alias = "num-class-images", help_heading = "Prior preservation")]
    pub prior_images: Option<usize>,
    /// Folder of the class noun's images; unset, prior/ in the run's folder
    #[arg(long, value_name = "FOLDER", alias = "class-data-dir", help_heading = "Prior preservation")]
    pub prior_folder: Option<PathBuf>,
    /// Prompt set or file to generate, score and show on a page when the run is finished; none for nothing
    ///
    /// Unset, what the model's attndreambooth.json says, or ours24. Each prompt is generated with the base model and with what
    /// was learned.
    #[arg(long, value_name = "PROMPTS", help_heading = "Run options")]
    pub results: Option<String>,
    /// Save a checkpoint every N steps and after each phase but the last
    #[arg(long, value_name = "N", alias = "checkpointing-steps", help_heading = "Run options")]
    pub checkpoint_every: Option<usize>,
    /// Keep the last checkpoint of the finished run, so that --extend goes on exactly
    #[arg(long, help_heading = "Run options")]
    #[serde(default)]
    pub keep_checkpoint: bool,
    /// Generate the validation prompts every N steps; 0 for never
    #[arg(long, value_name = "N", alias = "validation-steps", help_heading = "Run options")]
    pub validate_every: Option<usize>,
    /// What a model in a single file does not say of itself.
    #[command(flatten)]
    #[serde(flatten)]
    pub single_file: SingleFile,
}

/// What lies beside photos, and their shapes. Unset, none of it is used.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Photo options")]
pub struct PhotoFlags {
    /// Learn each photo with the caption beside it, NAME.txt or NAME.caption, in place of the prompt
    ///
    /// A caption names the subject, as in "a [V] dog, outdoors": by [V] or by the placeholder token, once, and by the class noun where
    /// the method's prompt has it (right after [V] for AttnDreamBooth).
    #[arg(long)]
    #[serde(default)]
    pub captions: bool,
    /// Learn with captions, and say where they go: "a photo of a [V] [category], [caption]"
    #[arg(long, value_name = "PROMPT")]
    pub caption_template: Option<String>,
    /// Let the loss count under the masks beside photos, NAME-masklabel.png (white is subject), or their alpha channels
    #[arg(long, visible_alias = "masked-loss", aliases = ["alpha-mask", "masked-training"])]
    #[serde(default)]
    pub masks: bool,
    /// Weigh the loss outside of masks so, from 0 to 1, in place of 0.1
    #[arg(long, value_name = "WEIGHT", value_parser = weight)]
    pub unmasked_weight: Option<f64>,
    /// Crop photos to shapes near their own, in place of squares
    ///
    /// All shapes have about the area of a square of --resolution, with sides that are multiples of 64 for Stable Diffusion; all photos
    /// of a batch have one shape.
    #[arg(long, visible_alias = "enable-bucket", alias = "aspect-ratio-bucketing")]
    #[serde(default)]
    pub buckets: bool,
    /// Train on N augmented crops of each photo, whose latents are kept, in place of new crops at each step
    ///
    /// A step saves the VAE's encoding. The authors' code draws new crops.
    #[arg(long, value_name = "N")]
    pub cache_latents: Option<u32>,
}

/// What people change most of AttnDreamBooth's phases.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Training options")]
pub struct PhaseFlags {
    /// Steps of the embedding phase; 0 skips it
    #[arg(long, value_name = "N")]
    pub embedding_steps: Option<usize>,
    /// Learning rate of the embedding phase
    #[arg(long, value_name = "RATE", visible_alias = "embedding-lr", alias = "text-encoder-lr", value_parser = rate)]
    pub embedding_learning_rate: Option<f64>,
    /// Warm-up steps of the embedding phase alone
    #[arg(long, value_name = "N")]
    pub embedding_warm_up: Option<usize>,
    /// Schedule of the embedding phase alone
    #[arg(long, value_enum, value_name = "SCHEDULE", hide_possible_values = true)]
    pub embedding_schedule: Option<LearningRateSchedule>,
    /// Steps of the cross_attention phase; 0 skips it
    #[arg(long, value_name = "N")]
    pub cross_attention_steps: Option<usize>,
    /// Learning rate of the cross_attention phase
    #[arg(long, value_name = "RATE", visible_alias = "cross-attention-lr", value_parser = rate)]
    pub cross_attention_learning_rate: Option<f64>,
    /// Warm-up steps of the cross_attention phase alone
    #[arg(long, value_name = "N")]
    pub cross_attention_warm_up: Option<usize>,
    /// Schedule of the cross_attention phase alone
    #[arg(long, value_enum, value_name = "SCHEDULE", hide_possible_values = true)]
    pub cross_attention_schedule: Option<LearningRateSchedule>,
    /// Steps of the unet phase; 0 skips it
    #[arg(long, value_name = "N")]
    pub unet_steps: Option<usize>,
    /// Learning rate of the unet phase
    #[arg(long, value_name = "RATE", visible_alias = "unet-lr", value_parser = rate)]
    pub unet_learning_rate: Option<f64>,
    /// Warm-up steps of the unet phase alone
    #[arg(long, value_name = "N")]
    pub unet_warm_up: Option<usize>,
    /// Schedule of the unet phase alone
    #[arg(long, value_enum, value_name = "SCHEDULE", hide_possible_values = true)]
    pub unet_schedule: Option<LearningRateSchedule>,
}

/// A configuration to start from.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// 60 + 100 + 500 steps, batch size 8
    Paper,
    /// The authors' fast version: the U-Net in 200 steps of batch size 4
    Fast,
}

/// How the last phase ends.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopKind {
    /// Where what is gained over the base model levels out
    Auto,
    /// Where the loss of a fixed batch varies little (arXiv 2302.04841)
    Dvar,
}

fn part(text: &str) -> Result<f64, String> {
    bounded::within(0.0..=2.0, "it is a part of the base model's text alignment")(text)
}

fn steps(text: &str) -> Result<usize, String> {
    bounded::within(1..=1_000_000, "they are done one by one")(text)
}

fn rate(text: &str) -> Result<f64, String> {
    bounded::within(0.0..=1e3, "a learning rate is small")(text)
}

fn weight(text: &str) -> Result<f64, String> {
    bounded::within(0.0..=1.0, "under a white mask it is 1")(text)
}

fn training_dtype(text: &str) -> Result<Dtype, String> {
    match text.parse() {
        Ok(dtype @ (Dtype::Fp32 | Dtype::Tf32 | Dtype::Bf16)) => Ok(dtype),
        _ => Err("training computes in fp32, tf32 (faster on a GPU) or bf16".to_owned()),
    }
}
