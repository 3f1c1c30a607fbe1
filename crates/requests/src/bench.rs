//! `bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::Compute;
use crate::bounded::{self, within};

/// Time a piece of work: prints a line of JSON with the seconds of each run
///
/// The work: unet-forward, embedding-step, cross-attention-step, unet-step (a step of each of AttnDreamBooth's phases with the
/// VAE's encoding of its batch), METHOD-step of the other methods, text-encoder, vae-encode, vae-decode, adamw, sampling, loading, features, training (a whole run).
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Bench {
    /// The work
    #[arg(required_unless_present_any = ["make", "plot"])]
    pub work: Option<String>,
    /// Model in the diffusers layout; for features, a CLIP's folder
    #[arg(long, default_value = "fixtures/miniature")]
    pub model: PathBuf,
    /// Batch size
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = bounded::batch)]
    pub batch_size: u32,
    /// Side of the images in pixels; unset, what the model was trained for
    #[arg(long, value_name = "PIXELS", value_parser = within(8..=8192_i64, "memory and time grow with its square and more"))]
    pub resolution: Option<i64>,
    /// Denoising steps of sampling
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub steps: usize,
    /// Compute activations again in the backward pass
    #[arg(long)]
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// For features, the folder with images; for training, that with photos
    #[arg(long, value_name = "FOLDER", default_value = "fixtures/subjects/penguin", alias = "pictures")]
    pub images: PathBuf,
    /// For training: class noun of the subject
    #[arg(long, value_name = "NOUN", default_value = "bird")]
    pub category: String,
    /// For training: one value of the configuration, for example phases.unet.steps=10; can be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    #[serde(default)]
    pub set: Vec<String>,
    /// Runs before the clock starts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within(0..=RUNS, RUNS_REASON))]
    pub warm_up: usize,
    /// Runs that are timed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = within(1..=RUNS, RUNS_REASON))]
    pub iterations: usize,
    /// Threads to compute with
    #[arg(long, value_name = "N", value_parser = bounded::threads)]
    pub threads: Option<i32>,
    /// Write something to time work on to --out, and time nothing
    #[arg(long, value_enum, requires = "out", conflicts_with = "work")]
    pub make: Option<Procedural>,
    /// Plot the numbers that `cargo xtask bench --scaling` has written, and time nothing
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = ["work", "make"])]
    pub plot: Option<PathBuf>,
    /// Folder that --make makes, or PNG file that --plot writes
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// A small tokenizer for --make
    #[arg(long, value_name = "FOLDER", default_value = "fixtures/tiny-sd21/tokenizer")]
    pub tokenizer: PathBuf,
    /// Where to compute.
    #[command(flatten)]
    #[serde(flatten)]
    pub compute: Compute,
}

/// How often a piece of work may be done.
const RUNS: usize = 1_000_000;
const RUNS_REASON: &str = "runs are done one by one";

/// What can be made.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Procedural {
    /// A model of Stable Diffusion 2.1-base's size, 5 GB, with random weights
    Sd21Base,
    /// A model of SDXL's size, 14 GB, with random weights
    SdxlBase,
    /// A CLIP of ViT-B/32's size, with random weights
    VitB32,
    /// 768 images of 512 pixels
    #[value(alias = "pictures")]
    Images,
}
