//! `weights`.

use std::path::PathBuf;

use clap::{Args, Subcommand, value_parser};
use serde::{Deserialize, Serialize};

/// List, download and verify published models (Stable Diffusion, CLIP)
///
/// HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the Hugging Face cache (HF_HOME, HF_HUB_CACHE) are honoured.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Weights {
    /// What to do.
    #[command(subcommand)]
    pub action: WeightsAction,
    /// Folder that holds a folder for each model
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        env = "ATTNDREAMBOOTH_MODELS",
        hide_env_values = true,
        default_value = "models"
    )]
    pub dir: PathBuf,
    /// Another list of models than the program's own
    #[arg(long, global = true, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
}

/// What to do with published models.
#[derive(Subcommand, Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightsAction {
    /// List every model, its size, its licence and whether it is here
    List,
    /// Download a model, or what is missing or damaged of it; an interrupted download continues where it stopped
    #[command(visible_alias = "fetch")]
    Download {
        /// Name of the model, as `weights list` shows it, or owner/name of the Hugging Face hub
        name: String,
        /// Folder that may have the files already, laid out as the model's own
        #[arg(long, value_name = "FOLDER")]
        from: Option<PathBuf>,
        /// Files downloaded at a time
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(1..=32))]
        jobs: u16,
        /// Wait before a source is asked again, in milliseconds; each next wait is four times as long
        #[arg(long, value_name = "MS", default_value_t = 500, value_parser = value_parser!(u32).range(0..=60_000))]
        retry_wait: u32,
    },
    /// Compare a model's files, or those of all models that are here, with their hashes
    Verify {
        /// Name of the model
        name: Option<String>,
    },
}
