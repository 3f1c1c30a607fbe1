//! `compare`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::Seed;

/// Compare runs side by side: configurations, scores and images; and make a blind study that asks people which they prefer
///
/// Images are compared where runs have generated the same prompt from the same seed, by `evaluate` or `generate`. The study is
/// a page to send to people, who send back a file of answers; --answers counts them.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Compare {
    /// Folders of two training runs or more; the study compares the first with each of the others
    #[arg(value_name = "RUN", required_unless_present = "answers", num_args = 2..)]
    #[serde(default)]
    pub runs: Vec<PathBuf>,
    /// Folder to write to: new, empty, or of an earlier call
    #[arg(long, value_name = "FOLDER", alias = "output-dir", default_value = "runs/compare")]
    pub out: PathBuf,
    /// Images of each prompt to show at most
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub images: usize,
    /// Questions of the study at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub questions: u32,
    /// Seed of the study's choice and order; -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    #[serde(default)]
    pub seed: Seed,
    /// Photo to show in the study; unset, the run's first
    #[arg(long, value_name = "PHOTO")]
    pub reference: Option<PathBuf>,
    /// Files of answers to count, in place of a comparison
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "runs")]
    #[serde(default)]
    pub answers: Vec<PathBuf>,
}
