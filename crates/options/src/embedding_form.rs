//! The forms of an embedding's file.

use serde::{Deserialize, Serialize};

/// What an embedding's tensor is called in its file, by which programs recognise it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "clap", value(rename_all = "lowercase"))]
pub enum EmbeddingForm {
    /// As the token: diffusers, A1111's web UI, ComfyUI
    #[default]
    Diffusers,
    /// emb_params: kohya's scripts, A1111's web UI
    Kohya,
    /// emp_params: OneTrainer
    OneTrainer,
}

impl EmbeddingForm {
    /// The tensor's name, of the embedding of `placeholder`.
    pub fn key(self, placeholder: &str) -> &str {
        match self {
            Self::Diffusers => placeholder,
            Self::Kohya => "emb_params",
            Self::OneTrainer => "emp_params",
        }
    }
}
