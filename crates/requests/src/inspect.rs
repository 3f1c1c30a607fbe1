//! `inspect`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::bounded::within;
use crate::{Compute, Sampler, Seed};

/// Compare a run's learned embedding with its initial value and the vocabulary, and generate [V] alone
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Inspect {
    /// Folder of a training run
    #[arg(long)]
    pub run: PathBuf,
    /// Where the run's base model is now, if it has been moved
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Folder to write to: new, empty, or of an earlier call; unset, RUN/inspect
    #[arg(long, value_name = "FOLDER", alias = "output-dir")]
    pub out: Option<PathBuf>,
    /// Nearest tokens to show
    #[arg(long, value_name = "N", default_value_t = Self::NEAREST)]
    pub nearest: usize,
    /// Images of the prompt "[V]" by the base U-Net, with the embedding before and after training; 0 for none
    #[arg(long, value_name = "N", default_value_t = Self::IMAGES, value_parser = within(0..=10_000_u64, "all of them are generated"))]
    pub images: u64,
    /// Seed of the first image, the next has the next seed; -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    #[serde(default)]
    pub seed: Seed,
    /// How noise becomes an image.
    #[command(flatten)]
    #[serde(flatten)]
    pub sampler: Sampler,
    /// Where to compute.
    #[command(flatten)]
    pub compute: Compute,
}

impl Inspect {
    const NEAREST: usize = 10;
    const IMAGES: u64 = 4;

    /// A run's embedding with the command's defaults.
    pub fn new(run: impl Into<PathBuf>) -> Self {
        Self {
            run: run.into(),
            model: None,
            out: None,
            nearest: Self::NEAREST,
            images: Self::IMAGES,
            seed: Seed::default(),
            sampler: Sampler::default(),
            compute: Compute::default(),
        }
    }
}
