//! `generate`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{Compute, LoraFile, Profiling, Sampler, Seed, SingleFile, Size, bounded};

/// Generate images from prompts, with a base model or a run
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
pub struct Generate {
    /// Model: a name, a folder in the diffusers layout, or a .safetensors checkpoint of Stable Diffusion 1.x, 2.x or XL
    ///
    /// With --run, where the run's base model is now, if it has been moved.
    #[arg(long, required_unless_present = "run", alias = "pretrained-model-name-or-path", alias = "ckpt")]
    pub model: Option<PathBuf>,
    /// Folder of a training run, whose subject prompts call [V]
    #[arg(long, conflicts_with = "SingleFile")]
    pub run: Option<PathBuf>,
    /// LoRA file and its scale, 1 by default; can be repeated
    ///
    /// Kohya's keys and diffusers' are read. The subject of an embedding in the file is [V] in prompts, unless --run has one, and
    /// has the token's own name. A file of Custom Diffusion is taken too, its tokens with --embedding.
    #[arg(long = "lora", value_name = "FILE[:SCALE]")]
    #[serde(default)]
    pub loras: Vec<LoraFile>,
    /// Scale of the LoRA that the run in --run has learned, in place of 1; 0 is without it
    #[arg(long, value_name = "SCALE", requires = "run", value_parser = scale, allow_negative_numbers = true)]
    pub lora_scale: Option<f64>,
    /// Prompt; can be repeated
    #[arg(long = "prompt", value_name = "PROMPT", required = true)]
    pub prompts: Vec<String>,
    /// Negative prompt
    #[arg(long, value_name = "PROMPT", default_value = "", hide_default_value = true)]
    #[serde(default)]
    pub negative_prompt: String,
    /// Folder to write to, created if missing; images are numbered on from those in it
    ///
    /// Unset, RUN/images or runs/generate.
    #[arg(long, value_name = "FOLDER", alias = "output-dir", alias = "outdir")]
    pub out: Option<PathBuf>,
    /// Images of each prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = bounded::images, visible_alias = "num-images-per-prompt")]
    #[serde(default = "one")]
    pub images: u32,
    /// Seed of each prompt's first image, the next has the next seed; -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    #[serde(default)]
    pub seed: Seed,
    /// Safetensors file with the initial noise: `latents` [images, channels, height/8, width/8]
    #[arg(long, value_name = "FILE")]
    pub latents: Option<PathBuf>,
    /// Safetensors file with the embedding of a token, as textual inversion makes it; can be repeated
    ///
    /// Prompts call it by the token that the file names, or by the file's name without its ending. A mapper of NeTI and a file of
    /// ViCo are taken too, one of each at most; its token is [V] as well, unless --run has a subject.
    #[arg(long = "embedding", value_name = "FILE")]
    #[serde(default)]
    pub embeddings: Vec<PathBuf>,
    /// Photo of the subject that a model of the method vico looks at; unset, the run's own copy of its first photo
    ///
    /// Its central square is taken.
    #[arg(long, value_name = "PHOTO")]
    pub reference: Option<PathBuf>,
    /// With --json, previews of each batch's first image while it is made, as events with a JPEG in base64
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = bounded::previews)]
    #[serde(default)]
    pub previews: u32,
    /// Look for NaN and infinite weights before starting
    #[arg(long)]
    #[serde(default)]
    pub check: bool,
    /// How noise becomes an image.
    #[command(flatten)]
    #[serde(flatten)]
    pub sampler: Sampler,
    /// How large images are.
    #[command(flatten)]
    #[serde(flatten)]
    pub size: Size,
    /// Where to compute.
    #[command(flatten)]
    #[serde(flatten)]
    pub compute: Compute,
    /// Whether to say where the time went.
    #[command(flatten)]
    #[serde(flatten)]
    pub profiling: Profiling,
    /// What a model in a single file does not say of itself.
    #[command(flatten)]
    #[serde(flatten)]
    pub single_file: SingleFile,
}

fn scale(text: &str) -> Result<f64, String> {
    bounded::within(-100.0..=100.0, "what the LoRA changes is multiplied by it")(text)
}

fn one() -> u32 {
    1
}

impl Generate {
    /// One image of a prompt, with the command's defaults; a model or a run is still to be named.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompts: vec![prompt.into()], images: one(), ..Self::default() }
    }
}
