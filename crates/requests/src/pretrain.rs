//! `pretrain`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use options::{DeviceChoice, Dtype};
use serde::{Deserialize, Serialize};

use crate::{Seed, bounded};

/// Train the miniature base model from scratch or from another one: VAE, CLIP and U-Net, one after the other
///
/// The same command continues what was interrupted. Ctrl-C stops after a checkpoint.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Pretrain {
    /// Folder with the drawings, as the emoji package has them
    #[arg(long, value_name = "FOLDER")]
    pub drawings: PathBuf,
    /// Folder for everything: new, empty, or of an earlier call
    #[arg(long, value_name = "FOLDER", default_value = "runs/miniature")]
    pub out: PathBuf,
    /// Start from the weights of a model that this command has made; with --part, its other parts stay as they are
    #[arg(long, value_name = "MODEL", conflicts_with = "assemble")]
    pub from: Option<PathBuf>,
    /// Only this part
    #[arg(long, value_enum)]
    pub part: Option<Part>,
    /// Time for all parts, such as 90m or 2h: steps are chosen to fit, by a measurement before each part
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub budget: Option<Duration>,
    /// Optimiser steps of the part, or of each part, those of earlier calls included
    #[arg(long, value_name = "N", conflicts_with = "budget", value_parser = bounded::within(1..=100_000_000_u64, "they are done one by one"))]
    pub steps: Option<u64>,
    /// Seed of scenes and noise; another one than MODEL's shows it new scenes. -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    #[serde(default)]
    pub seed: Seed,
    /// Learning rate between warm-up and decay
    #[arg(long, value_name = "RATE", visible_alias = "lr")]
    pub learning_rate: Option<f64>,
    /// Batch size
    #[arg(long, value_name = "N", alias = "train-batch-size")]
    pub batch_size: Option<usize>,
    /// Precision of computation, fp32 or bf16; parameters are always fp32
    #[arg(long, value_parser = part_dtype, alias = "mixed-precision")]
    pub dtype: Option<Dtype>,
    /// Device to compute on: auto, cpu, cuda or cuda:N
    #[arg(long, env = "ATTNDREAMBOOTH_DEVICE", hide_env_values = true, default_value_t)]
    #[serde(default)]
    pub device: DeviceChoice,
    /// Threads to compute with
    #[arg(long, value_name = "N", value_parser = bounded::threads)]
    pub threads: Option<i32>,
    /// Train nothing: write the model from what is there, and measure it
    #[arg(long)]
    #[serde(default)]
    pub assemble: bool,
}

/// A component of the miniature.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "their names say it")]
pub enum Part {
    Vae,
    Clip,
    Unet,
}

fn part_dtype(text: &str) -> Result<Dtype, String> {
    match text.parse() {
        Ok(dtype @ (Dtype::Fp32 | Dtype::Bf16)) => Ok(dtype),
        _ => Err("parts are trained in fp32 or bf16".to_owned()),
    }
}

/// `90m`, `2h` or `300s`.
fn duration(text: &str) -> Result<Duration> {
    let unit = match text.chars().last() {
        Some('s') => 1.0,
        Some('m') => 60.0,
        Some('h') => 3600.0,
        _ => bail!("{text:?} is no time; write 300s, 90m or 2h"),
    };
    match text[..text.len() - 1].parse::<f64>() {
        Ok(count) if count > 0.0 && count * unit < 1e9 => Ok(Duration::from_secs_f64(count * unit)),
        _ => bail!("{text:?} is no time; write 300s, 90m or 2h"),
    }
}
