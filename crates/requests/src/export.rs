//! `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use options::{EmbeddingForm, LoraKeys};
use serde::{Deserialize, Serialize};

use crate::bounded;

/// Write what a run has learned as files that other programs load
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct Export {
    /// Folder of a finished training run
    #[arg(long)]
    pub run: PathBuf,
    /// Where the run's base model is now, if it has been moved
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Folder (diffusers) or .safetensors file (of other formats) to write; it must not exist yet
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// What to write; unset, single-file where --out ends in .safetensors, else diffusers
    #[arg(long, value_enum)]
    pub format: Option<ExportFormat>,
    /// Dtype of a file's tensors; unset, fp32
    #[arg(long, value_enum)]
    pub dtype: Option<FileDtype>,
    /// What the tensor in an embedding's file is called
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    #[serde(default)]
    pub embedding_form: EmbeddingForm,
    /// What a LoRA holds.
    #[command(flatten)]
    #[serde(flatten)]
    pub lora: LoraExport,
}

/// What a LoRA holds.
#[derive(Args, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Options for --format lora")]
pub struct LoraExport {
    /// Rank: more keeps more of what was learned, in a larger file; unset, that of the LoRA that the
    /// run has trained, or 64
    #[arg(long, value_name = "N", value_parser = bounded::rank)]
    pub rank: Option<u32>,
    /// Cover residual blocks too, mostly 3x3 convolutions; otherwise the layers of the transformers alone
    #[arg(long)]
    pub convolutions: bool,
    /// Add the full change (.diff) of all other parameters, which ComfyUI and this program read
    #[arg(long)]
    pub full_rest: bool,
    /// Cut off numbers beyond this quantile, as kohya's script does at 0.99; unset, none, which leaves out less
    #[arg(long, value_name = "Q", value_parser = bounded::quantile)]
    pub clamp_quantile: Option<f64>,
    /// Leave the embedding out of a file in kohya's keys, as diffusers requires; it is also in a file of its own
    #[arg(long)]
    pub no_bundled_embedding: bool,
    /// Names of the tensors; unset, kohya
    #[arg(long, value_enum)]
    pub lora_keys: Option<LoraKeys>,
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
    /// A LoRA file: the change of the U-Net by low rank, with the embedding
    Lora,
    /// NeTI's mapper, which only `generate --embedding` of this program reads
    Neti,
    /// ViCo's blocks and embedding, which only `generate --embedding` of this program reads
    Vico,
    /// Custom Diffusion's file, as diffusers names its tensors: the keys and values, with the embeddings in files beside it
    CustomDiffusion,
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
