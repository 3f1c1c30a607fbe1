//! What the user says of a single file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a single file does not say of itself; for a folder, which says it all, nothing may be given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelOptions {
    /// The folder of the tokenizer, in place of CLIP's own vocabulary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// What the U-Net predicts, where the file does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<PredictionType>,
    /// A folder in the diffusers layout whose configs, and whose tokenizer if it has one, are those of the file; its weights
    /// are not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
}

impl ModelOptions {
    /// Whether nothing is given.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a U-Net predicts, in diffusers' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity.
    VPrediction,
}

impl PredictionType {
    /// Both names.
    pub const NAMES: [&str; 2] = ["epsilon", "v_prediction"];
}

impl fmt::Display for PredictionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl FromStr for PredictionType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "epsilon" => Ok(Self::Epsilon),
            "v_prediction" => Ok(Self::VPrediction),
            _ => Err(format!("{name:?} is neither epsilon nor v_prediction")),
        }
    }
}
