//! `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use options::EmbeddingForm;
use serde::{Deserialize, Serialize};

/// Write what a run has learned as files that other programs load
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Export {
    /// Folder of a finished training run
    #[arg(long)]
    pub run: PathBuf,
    /// Where the run's base model is now, if it has been moved
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Folder (diffusers) or .safetensors file (single-file) to write; it must not exist yet
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// What to write; unset, single-file where --out ends in .safetensors, else diffusers
    #[arg(long, value_enum)]
    pub format: Option<ExportFormat>,
    /// Dtype of a single file's tensors; unset, fp32
    #[arg(long, value_enum)]
    pub dtype: Option<FileDtype>,
    /// What the tensor in an embedding's file is called
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    #[serde(default)]
    pub embedding_form: EmbeddingForm,
}

impl Export {
    /// What to write.
    pub fn format(&self) -> ExportFormat {
        let single = self.out.extension().is_some_and(|extension| extension == "safetensors");
        self.format.unwrap_or(if single { ExportFormat::SingleFile } else { ExportFormat::Diffusers })
    }
}

/// What other programs load.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportFormat {
    /// A folder for StableDiffusionPipeline.from_pretrained, with the new token in it
    Diffusers,
    /// A checkpoint for A1111's web UI and ComfyUI, with the embedding in a file beside it
    SingleFile,
    /// The embedding alone, which is all that textual inversion learns
    Embedding,
}

/// What tensors are kept in; tf32 is only a way to compute.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileDtype {
    /// 32-bit floats
    #[default]
    Fp32,
    /// bfloat16
    Bf16,
    /// 16-bit floats
    Fp16,
}
