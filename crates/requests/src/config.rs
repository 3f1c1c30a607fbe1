//! `config`.

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::TrainOptions;

/// Print the configuration of a run before it starts, or its JSON schema
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// What to print.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What to print.
#[derive(Subcommand, Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigAction {
    /// Print the configuration that `train` would use with the same options, for --config
    #[command(args_override_self = true)]
    Print {
        /// Format to print in
        #[arg(long, value_enum, default_value_t)]
        #[serde(default)]
        format: ConfigFormat,
        /// What decides it.
        #[command(flatten)]
        #[serde(flatten)]
        options: Box<TrainOptions>,
    },
    /// Print the JSON schema of a configuration, for editors
    Schema,
}

/// How a configuration is written.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigFormat {
    /// JSON
    #[default]
    Json,
    /// TOML
    Toml,
}
