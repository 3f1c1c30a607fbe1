//! `report`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

/// Write a run as one HTML page: configuration, curves, images, scores, attention, whatever there is
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Folder of a training run, finished or not
    #[arg(long)]
    pub run: PathBuf,
    /// File to write; unset, report.html in the run's folder
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}
