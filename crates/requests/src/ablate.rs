//! `ablate`.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error};
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use options::DeviceChoice;
use serde::{Deserialize, Serialize};

use crate::{Sampler, Seed, TrainOptions, bounded, hyphenated};

/// Train with the whole method and without each of its parts, and compare (the paper's figures 7 and 13)
///
/// Every variant runs with the same subjects and seeds; the same command continues where it was interrupted. Options of `train`
/// follow after --: `ablate --subject photos/rex=dog --out runs/ablation -- --model MODEL`.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Ablate {
    /// Folder of photos, or a single one, and the class noun for what they show; can be repeated
    #[arg(long = "subject", value_name = "PHOTOS=NOUN", required = true)]
    pub subjects: Vec<AblatedSubject>,
    /// Folder for all runs, the table and the grid
    #[arg(long, value_name = "FOLDER", alias = "output-dir")]
    pub out: PathBuf,
    /// Variants to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = AblationVariant::ALL)]
    pub variants: Vec<AblationVariant>,
    /// Seeds that each variant runs with; --seeds=-1 for a random one, which is shown
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 2].map(Seed::from), allow_negative_numbers = true)]
    pub seeds: Vec<Seed>,
    /// Prompt set, or a file, as for `evaluate`
    #[arg(long, default_value = "ours24")]
    pub prompts: String,
    /// Images of each prompt and seed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = bounded::images)]
    pub images: u32,
    /// How noise becomes an image.
    #[command(flatten)]
    #[serde(flatten)]
    pub sampler: Sampler,
    /// CLIP that scores, as for `evaluate`
    #[arg(long)]
    pub clip: Option<PathBuf>,
    /// Device to compute on: auto, cpu, cuda or cuda:N
    #[arg(
        long,
        env = "ATTNDREAMBOOTH_DEVICE",
        hide_env_values = true,
        default_value_t,
        help_heading = "Computing options"
    )]
    #[serde(default)]
    pub device: DeviceChoice,
    /// What every run is trained with: at least the model.
    #[command(flatten)]
    pub train: TrainOptionsAfterDashes,
}

/// The options of `train` that decide a configuration, after `--` on the command line.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrainOptionsAfterDashes(pub Box<TrainOptions>);

const AFTER_DASHES: &str = "train options";

impl Args for TrainOptionsAfterDashes {
    fn augment_args(command: Command) -> Command {
        let arg = Arg::new(AFTER_DASHES).value_name("TRAIN OPTIONS").num_args(1..).last(true).required(true);
        command.arg(arg.help("Options of `train` that decide a configuration: at least --model"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TrainOptionsAfterDashes {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let words = matches.get_many::<String>(AFTER_DASHES).into_iter().flatten().map(hyphenated);
        let command = Command::new("train").no_binary_name(true).args_override_self(true).disable_help_flag(true);
        let parsed = TrainOptions::augment_args(command).try_get_matches_from(words);
        let options = parsed.and_then(|matches| TrainOptions::from_arg_matches(&matches)).map_err(|error| {
            let error = error.to_string();
            let reason = error.lines().next().unwrap_or_default().trim_start_matches("error: ");
            clap::Error::raw(
                ErrorKind::UnknownArgument,
                format!("of the options after --, which are train's: {reason}\n"),
            )
        })?;
        Ok(Self(Box::new(options)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        Self::from_arg_matches(matches).map(|options| *self = options)
    }
}

/// Whom to learn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AblatedSubject {
    /// The folder of photos, or a single one.
    pub photos: PathBuf,
    /// The class noun.
    pub category: String,
    /// The name of its photos' folder or file.
    pub name: String,
}

impl FromStr for AblatedSubject {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.rsplit_once('=').filter(|(photos, category)| !photos.is_empty() && !category.is_empty());
        let (photos, category) = parts.with_context(|| format!("{text:?} is not PHOTOS=NOUN, as photos/rex=dog"))?;
        let photos = PathBuf::from(photos);
        let name = if photos.is_dir() { photos.file_name() } else { photos.file_stem() };
        let name = name.map(|name| name.to_string_lossy().into_owned());
        let name = name.with_context(|| format!("the photos {} have no name", photos.display()))?;
        Ok(Self { photos, category: category.to_owned(), name })
    }
}

/// The method, whole or without a part.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AblationVariant {
    /// The whole method
    Full,
    /// Without learning the embedding first
    #[serde(rename = "without-stage1")]
    WithoutStage1,
    /// Without tuning cross-attention first
    #[serde(rename = "without-stage2")]
    WithoutStage2,
    /// Without tuning the whole U-Net
    #[serde(rename = "without-stage3")]
    WithoutStage3,
    /// Without regularising attention
    WithoutRegularizer,
}

impl AblationVariant {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Full, Self::WithoutStage1, Self::WithoutStage2, Self::WithoutStage3, Self::WithoutRegularizer];

    /// Its name on the command line and in files.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
