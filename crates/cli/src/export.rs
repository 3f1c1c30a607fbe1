//! `export`: what a run has learned, for other programs.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use export::{SingleFile, Unet};
use trainer::FinishedRun;

use crate::device::Dtype;

/// Write what a run has learned as files that other programs load.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The folder of a finished training run
    #[arg(long)]
    run: PathBuf,
    /// The folder (diffusers) or the .safetensors file (single-file) to write
    #[arg(long)]
    out: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The kind of number in a single file
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Format {
    /// A folder for StableDiffusionPipeline.from_pretrained, with the new token in it
    #[default]
    Diffusers,
    /// A checkpoint for A1111's web UI and ComfyUI, with the embedding in a file beside it
    SingleFile,
}

impl Export {
    pub(crate) fn run(self) -> Result<()> {
        let run = FinishedRun::open(&self.run)?;
        let (model, unet) = (&run.config.model, Some(Unet::Folder(&run.unet)));
        export::notes(model, unet).iter().for_each(|note| terminal::note!("{note}"));
        match self.format {
            Format::Diffusers => {
                let embeddings = Some((run.config.placeholder.as_str(), &run.embedding));
                export::diffusers_folder(model, &self.out, unet, embeddings)?;
                terminal::say!("{}; its prompts call the subject {}", self.out.display(), run.config.placeholder);
            }
            Format::SingleFile => {
                let Some(stem) = self.out.file_stem() else { bail!("--out must name a .safetensors file") };
                let embedding = self.out.with_file_name(format!("{}-embedding.safetensors", stem.display()));
                let format = SingleFile { kind: self.dtype.kind(), ..SingleFile::default() };
                export::single_file(model, &self.out, unet, &format)?;
                export::save_embeddings(&embedding, &run.config.placeholder, &run.embedding)?;
                terminal::say!("{} and {}", self.out.display(), embedding.display());
            }
        }
        Ok(())
    }
}
