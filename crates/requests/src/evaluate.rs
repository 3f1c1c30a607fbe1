//! `evaluate`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{Compute, Sampler, Seed, Size, bounded};

/// Generate images of a learned subject for a set of prompts and score them with CLIP
///
/// CLIP-I says how much the images look like the photos, CLIP-T how much they show what the prompts say. Images that are there
/// already are kept, so the same command continues an interrupted evaluation.
#[derive(Args, Debug, Clone, Default, Serialize, Deserialize)]
#[command(group(ArgGroup::new("evaluated").required(true).multiple(true).args(["run", "check_judge"])))]
pub struct Evaluate {
    /// Folder of a finished training run
    #[arg(long)]
    pub run: Option<PathBuf>,
    /// Where the run's base model is now, if it has been moved
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Prompt set, or a file: JSON, or a prompt on each line with {} for the subject
    #[arg(long, long_help = prompts_help())]
    pub prompts: Option<String>,
    /// Images of each prompt (the paper: 32)
    #[arg(long, value_name = "N", default_value_t = Self::IMAGES, value_parser = bounded::images)]
    #[serde(default = "Evaluate::images")]
    pub images: u32,
    /// Also evaluate the base model, from the same noise, with the class noun alone for the subject
    #[arg(long)]
    #[serde(default)]
    pub base: bool,
    /// CLIP that scores: a name or a folder; unset, judge/ or clip/ in the base model's folder, or clip-vit-b32
    #[arg(long)]
    pub clip: Option<PathBuf>,
    /// Check the judge and score no images: what it sees in pictures whose captions are known
    ///
    /// For a base model that has a judge of its own, as the miniature has: --model names it, or --run one of its runs.
    #[arg(long)]
    #[serde(default)]
    pub check_judge: bool,
    /// Folder of a DINO (facebook/dino-vits16) for DINO-I, the likeness as DINO sees it
    #[arg(long, value_name = "FOLDER")]
    pub dino: Option<PathBuf>,
    /// Folder to write to: new, empty, or of an earlier call; unset, RUN/evaluation/NAME OF THE PROMPTS
    #[arg(long, value_name = "FOLDER", alias = "output-dir")]
    pub out: Option<PathBuf>,
    /// Folder with photos of the subject, or a single photo; unset, the run's own
    #[arg(long, value_name = "PHOTOS", visible_alias = "instance-data-dir")]
    pub concept: Option<PathBuf>,
    /// Folder with masks, white where the subject is, for a CLIP-I with everything else painted over
    ///
    /// It holds photos/, subject/ and, with --base, base/, with a mask for each image under its name.
    #[arg(long, value_name = "FOLDER")]
    pub masks: Option<PathBuf>,
    /// Colour that is painted over what the masks leave out
    #[arg(long, value_name = "COLOUR", value_enum, default_value_t)]
    #[serde(default)]
    pub mask_background: MaskBackground,
    /// Seed that each image's is derived from; -1 for a random one, which is shown
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    #[serde(default)]
    pub seed: Seed,
    /// How noise becomes an image.
    #[command(flatten)]
    #[serde(flatten)]
    pub sampler: Sampler,
    /// How large images are.
    #[command(flatten)]
    #[serde(flatten)]
    pub size: Size,
    /// Where to compute.
    #[command(flatten)]
    #[serde(flatten)]
    pub compute: Compute,
}

impl Evaluate {
    const IMAGES: u32 = 4;

    fn images() -> u32 {
        Self::IMAGES
    }

    /// The evaluation of a run with the command's defaults.
    pub fn new(run: impl Into<PathBuf>) -> Self {
        Self { run: Some(run.into()), images: Self::IMAGES, ..Self::default() }
    }
}

/// What is painted where a mask is black.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskBackground {
    /// The mean grey
    #[default]
    Grey,
    /// Black
    Black,
}

fn prompts_help() -> String {
    format!(
        "Prompt set, or a file: JSON, or a prompt on each line with {{}} for the subject\n\nSets: {}. Unset, those of the \
         run's own results.",
        prompts::PromptSet::names().join(", ")
    )
}
