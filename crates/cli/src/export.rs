//! `export`: what a run has learned, for other programs.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use export::{SingleFile, Unet};
use model_files::BaseModel;
use tch::Kind;
use trainer::FinishedRun;

use crate::learned;

/// Write what a run has learned as files that other programs load.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The folder of a finished training run
    #[arg(long)]
    run: PathBuf,
    /// Where the run's base model is now, if it has been moved
    #[arg(long)]
    model: Option<PathBuf>,
    /// The folder (diffusers) or the .safetensors file (single-file) to write; it must not exist yet
    #[arg(long)]
    out: PathBuf,
    /// What to write; if not given, single-file where --out ends in .safetensors, else diffusers
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The dtype of a single file's tensors; fp32 if not given
    #[arg(long, value_enum)]
    dtype: Option<FileDtype>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A folder for StableDiffusionPipeline.from_pretrained, with the new token in it
    Diffusers,
    /// A checkpoint for A1111's web UI and ComfyUI, with the embedding in a file beside it
    SingleFile,
}

/// What numbers are kept in; tf32 is only a way to compute.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
enum FileDtype {
    #[default]
    Fp32,
    Bf16,
    Fp16,
}

impl Export {
    pub(crate) fn run(self) -> Result<()> {
        let single = self.out.extension().is_some_and(|extension| extension == "safetensors");
        match self.format.unwrap_or(if single { Format::SingleFile } else { Format::Diffusers }) {
            Format::Diffusers => self.diffusers(),
            Format::SingleFile => self.single_file(),
        }
    }

    fn open(&self) -> Result<(FinishedRun, BaseModel)> {
        let run = learned::open(&self.run, self.model.as_deref())?;
        let base = run.base_model()?;
        export::notes(&base, Some(Unet::Folder(&run.unet))).iter().for_each(|note| terminal::note!("{note}"));
        Ok((run, base))
    }

    fn diffusers(&self) -> Result<()> {
        ensure!(
            self.dtype.is_none(),
            "--dtype is for a single file: a diffusers folder keeps the dtypes of its files, which are loaded as fp32, and \
             from_pretrained(..., torch_dtype=...) converts them; leave out --dtype, or give --format single-file"
        );
        let (run, base) = self.open()?;
        let (placeholder, category) = (&run.config.placeholder, &run.config.category);
        let embeddings = Some((placeholder.as_str(), &run.embedding));
        export::diffusers_folder(&base, &self.out, Some(Unet::Folder(&run.unet)), embeddings)?;
        let out = terminal::path(&self.out);
        terminal::say!(
            "{out}; its prompts call the subject {placeholder}, as in \"a photo of a {placeholder} {category}\""
        );
        Ok(())
    }

    fn single_file(&self) -> Result<()> {
        let kind = match self.dtype.unwrap_or_default() {
            FileDtype::Fp32 => Kind::Float,
            FileDtype::Bf16 => Kind::BFloat16,
            FileDtype::Fp16 => Kind::Half,
        };
        let (run, base) = self.open()?;
        let [embedding, usage] = beside(&self.out);
        // Before the gigabytes.
        for path in [&self.out, &embedding, &usage] {
            atomic::ensure_new(path)?;
        }
        let (name, category) = (export::name_in_prompts(&embedding), &run.config.category);
        let how = format!(
            "put {} into the folder for embeddings; prompts then call the subject {name} in A1111's web UI, as in \"a photo \
             of a {name} {category}\", and embedding:{name} in ComfyUI",
            terminal::path(embedding.file_name().unwrap_or_default())
        );
        // As ModelSpec calls them.
        let metadata = [("modelspec.trigger_phrase", name.as_str()), ("modelspec.usage_hint", &how)];
        let format = SingleFile { kind, metadata: &metadata, ..SingleFile::default() };
        export::single_file(&base, &self.out, Some(Unet::Folder(&run.unet)), &format)?;
        export::save_embeddings(&embedding, &run.config.placeholder, &run.embedding)?;
        // A1111's web UI shows the text as the checkpoint's description.
        atomic::write(&usage, format!("To use the subject of this checkpoint, {how}.\n"))?;
        terminal::say!("{} and {}: {how}", terminal::path(&self.out), terminal::path(&embedding));
        Ok(())
    }
}

/// The embedding, under a name that prompts can have in them, and the text on how to use it.
fn beside(out: &Path) -> [PathBuf; 2] {
    let stem = export::name_in_prompts(out);
    // What ends a name in a prompt, or means something there.
    let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name = stem.chars().map(plain).collect::<String>();
    [out.with_file_name(format!("{name}-embedding.safetensors")), out.with_extension("txt")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embeddings_name_can_stand_in_a_prompt() {
        let names = beside(Path::new("out/my dog <1>.safetensors"));
        assert_eq!(names, ["out/my-dog--1--embedding.safetensors", "out/my dog <1>.txt"].map(PathBuf::from));
    }
}
