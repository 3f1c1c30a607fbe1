//! `attend`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{Compute, Sampler, Seed, SingleFile};

/// Show where in an image each word of its prompt acts: attention heat maps as DAAM makes them
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
pub struct Attend {
    /// Folder of a training run
    #[arg(long, required_unless_present = "model", conflicts_with = "SingleFile")]
    pub run: Option<PathBuf>,
    /// Model in place of a run: a name, a folder in the diffusers layout, or a .safetensors checkpoint
    ///
    /// With --run, where the run's base model is now, if it has been moved.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Prompt; of a run, one with [V]
    #[arg(long)]
    pub prompt: String,
    /// Seed of the image's noise, the same in all rows; -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    #[serde(default)]
    pub seed: Seed,
    /// Show the base model and the model after each phase of the run, row by row
    #[arg(long, alias = "stages")]
    #[serde(default)]
    pub phases: bool,
    /// Word to show; can be repeated. Unset, all words
    #[arg(long = "word", value_name = "WORD")]
    #[serde(default)]
    pub words: Vec<String>,
    /// Folder to write to: new, empty, or of an earlier call, whose images are replaced
    ///
    /// Unset, RUN/attend or runs/attend.
    #[arg(long, value_name = "FOLDER", alias = "output-dir")]
    pub out: Option<PathBuf>,
    /// Colour scale: per map or shared
    #[arg(long, value_enum, default_value_t, visible_alias = "colours")]
    #[serde(default)]
    pub colors: ColorScale,
    /// Layers that count, by how many times smaller than the latents they are
    #[arg(long, value_delimiter = ',', default_values_t = factors())]
    #[serde(default = "factors")]
    pub factors: Vec<i64>,
    /// Count the U-Net's middle block too
    #[arg(long)]
    #[serde(default)]
    pub mid: bool,
    /// Divide each pixel's attention by its sum over the words
    #[arg(long)]
    #[serde(default)]
    pub normalize: bool,
    /// How noise becomes an image.
    #[command(flatten)]
    #[serde(flatten)]
    pub sampler: Sampler,
    /// Where to compute.
    #[command(flatten)]
    pub compute: Compute,
    /// What a model in a single file does not say of itself.
    #[command(flatten)]
    #[serde(flatten)]
    pub single_file: SingleFile,
}

impl Attend {
    /// The heat maps of a prompt with the command's defaults.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), factors: factors(), ..Self::default() }
    }
}

/// DAAM's.
fn factors() -> Vec<i64> {
    vec![1, 2, 4]
}

/// What values the coldest and the hottest colour stand for.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorScale {
    /// Each map's own least and greatest value, as in DAAM: shows where
    #[default]
    Own,
    /// Those of all maps in the figure: shows also how much
    #[value(alias = "shared")]
    Common,
}
