//! `merge`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

/// Merge finished runs of custom-diffusion into one model, a folder in the diffusers layout whose prompts name every subject
///
/// The runs are of one base model, each with a placeholder token of its own (train with `--set 'placeholder=<new2>'`). Nothing is
/// trained: of all weights that treat the words of the subjects as their runs do, those are computed that change the captions
/// least.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Merge {
    /// Folders of two finished training runs or more
    #[arg(value_name = "RUN", required = true, num_args = 2..)]
    pub runs: Vec<PathBuf>,
    /// Where the runs' base model is now, if it has been moved
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Folder to write; it must not exist yet
    #[arg(long, value_name = "FOLDER", alias = "output-dir")]
    pub out: PathBuf,
    /// What is to stay as it is: the set `everyday`, or a text file with a caption on each line, a few hundred
    #[arg(long, value_name = "SET|FILE", default_value = "everyday")]
    #[serde(default = "everyday")]
    pub captions: String,
}

fn everyday() -> String {
    "everyday".to_owned()
}
