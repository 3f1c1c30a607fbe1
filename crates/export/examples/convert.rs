//! Writes a model, with what was learned where that is given, as a single file or as a folder.
//!
//! ```console
//! $ cargo run -p attndreambooth-export --example convert                                            # the tiny model in fixtures
//! $ cargo run -p attndreambooth-export --example convert -- MODEL OUT.safetensors                   # for A1111's web UI, ComfyUI
//! $ cargo run -p attndreambooth-export --example convert -- MODEL OUT.safetensors f16 RUN/unet      # with a trained U-Net
//! $ cargo run -p attndreambooth-export --example convert -- MODEL OUT RUN/unet RUN/learned_embeds.safetensors  # for diffusers
//! ```

#![allow(clippy::print_stdout, reason = "it reports what it wrote")]

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use export::{Replaced, SingleFile, Unet};
use model_files::{BaseModel, ModelOptions};
use tch::Kind;
use weights::Archive;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let tiny = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-sd21");
    let model = arguments.next().unwrap_or_else(tiny);
    let model = BaseModel::open(&model, &ModelOptions::default())?;
    let out = arguments.next().unwrap_or_else(|| std::env::temp_dir().join("tiny-sd21.safetensors"));
    let mut rest: Vec<PathBuf> = arguments.collect();
    if out.extension().is_none() {
        let replaced = Replaced { unet: rest.first().map(|folder| Unet::Folder(folder)), ..Replaced::default() };
        let learned = rest.get(1).map(|path| export::load_embeddings(path, &model.token_widths()?)).transpose()?;
        let learned: Vec<_> = learned.iter().map(|(token, rows)| (token.as_str(), rows)).collect();
        export::diffusers_folder(&model, &out, &replaced, &learned)?;
        println!("{}: a folder for StableDiffusionPipeline.from_pretrained", out.display());
        return Ok(());
    }

    let kind = if rest.is_empty() { "f32".into() } else { rest.remove(0) };
    let kind = match kind.to_str() {
        Some("f32") => Kind::Float,
        Some("f16") => Kind::Half,
        Some("bf16") => Kind::BFloat16,
        _ => bail!("the type {} is not f32, f16 or bf16", kind.display()),
    };
    let replaced = Replaced { unet: rest.first().map(|folder| Unet::Folder(folder)), ..Replaced::default() };
    export::single_file(&model, &out, &replaced, &SingleFile { kind, ..SingleFile::default() })?;
    let archive = Archive::open(&out)?;
    println!("{}: {} tensors, {} bytes", out.display(), archive.shapes().count(), out.metadata()?.len());
    let mut metadata: Vec<_> = archive.metadata().iter().collect();
    metadata.sort_unstable();
    metadata.iter().for_each(|(key, value)| println!("  {key}: {value}"));
    Ok(())
}
