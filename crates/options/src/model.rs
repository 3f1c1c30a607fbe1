//! What the user says of a single file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::PredictionType;

/// What a single file does not say of itself; for a folder, which says it all, nothing may be given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
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
