//! `table`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use options::DeviceChoice;
use serde::{Deserialize, Serialize};

use crate::{Seed, Share};

/// Compare methods over subjects, training seeds and prompts (the paper's section 5)
///
/// A plan in TOML names the methods, the subjects, the seeds and the prompts; docs/tables.md shows one. Each method with each subject
/// and seed is a cell: trained, generated and scored for itself. Cells are numbered, and any machine that sees the folder can compute
/// any of them.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// What to do.
    #[command(subcommand)]
    pub action: TableAction,
}

/// What to do with a table.
#[derive(Subcommand, Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableAction {
    /// Show the cells, which of them are done, and what time and disk the others will take
    Plan {
        /// Which table.
        #[command(flatten)]
        #[serde(flatten)]
        table: TableFolder,
        /// Device to compute on: auto, cpu, cuda or cuda:N
        #[arg(long, env = "ATTNDREAMBOOTH_DEVICE", hide_env_values = true, default_value_t)]
        #[serde(default)]
        device: DeviceChoice,
    },
    /// Compute the cells that are not done
    Run {
        /// Which table.
        #[command(flatten)]
        #[serde(flatten)]
        table: TableFolder,
        /// Which cells.
        #[command(flatten)]
        #[serde(flatten)]
        share: Share,
        /// What stays of a cell beside its scores and figures
        #[arg(long, value_enum, default_value_t)]
        #[serde(default)]
        keep: Keep,
        /// Device to compute on: auto, cpu, cuda or cuda:N
        #[arg(long, env = "ATTNDREAMBOOTH_DEVICE", hide_env_values = true, default_value_t)]
        #[serde(default)]
        device: DeviceChoice,
    },
    /// Collect what is done as a table and a page with figures
    Collect {
        /// Which table.
        #[command(flatten)]
        #[serde(flatten)]
        table: TableFolder,
        /// Form in which the table is printed
        #[arg(long, value_enum, default_value_t)]
        #[serde(default)]
        format: TableFormat,
        /// Files of answers to the table's study, to count on the page
        #[arg(long, value_name = "FILE", num_args = 1..)]
        #[serde(default)]
        answers: Vec<PathBuf>,
    },
    /// Make a blind study of the images that are done: a page that asks people which of two is better
    ///
    /// It compares the reference with each other method. People send back files of answers, which `collect --answers` counts.
    Study {
        /// Which table.
        #[command(flatten)]
        #[serde(flatten)]
        table: TableFolder,
        /// Questions at most
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        questions: u32,
        /// Seed of the choice and order; -1 for a random one, which is shown
        #[arg(long, default_value_t, allow_negative_numbers = true)]
        #[serde(default)]
        seed: Seed,
    },
}

/// A plan and the folder of its cells.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct TableFolder {
    /// Plan of the table, a TOML file
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// Folder of the cells and the table, or a URL (s3://, gs://, az://, file://); unset, runs/NAME after the plan's name
    ///
    /// Results at a URL are computed in a folder here, named by ATTNDREAMBOOTH_WORK or in the user's cache, and uploaded when they are
    /// done. Credentials are read from the environment, such as AWS_ACCESS_KEY_ID.
    #[arg(long, value_name = "FOLDER", alias = "output-dir")]
    pub out: Option<PathBuf>,
}

/// What stays of a cell.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Nothing more
    #[default]
    Scores,
    /// All generated images
    Images,
    /// Images and the run with what it has learned
    Everything,
}

/// How a table is printed.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    /// Aligned columns
    #[default]
    Text,
    /// Markdown
    #[value(alias = "markdown")]
    Md,
    /// A tabular of LaTeX
    Latex,
    /// Comma-separated values with all numbers
    Csv,
    /// As table.json
    Json,
}
