//! The trained parts as one model folder.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tch::{Device, Kind};
use weights::Tensors;

use crate::trained::{scaling_factor, tensors, text_tensors};
use crate::{Part, Sources, shapes};

/// Writes `out` in the diffusers layout, with CLIP in `clip/`, fp16.
///
/// # Errors
/// When a part has not been trained, or a file cannot be written.
pub fn assemble(run: &Path, sources: &Sources, out: &Path) -> Result<()> {
    let vocab_size = sources.tokenizer.vocab_size();
    let to = (Kind::Float, Device::Cpu);
    let write = |folder: &str, file: &str, value: &Value| -> Result<()> {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        atomic::write(&folder.join(file), format!("{}\n", serde_json::to_string_pretty(value)?))
    };
    let save = |file: &str, tensors: &Tensors| {
        weights::save(&out.join(file), tensors.iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Half))))
    };
    write("", "model_index.json", &shapes::model_index())?;
    write("scheduler", "scheduler_config.json", &shapes::scheduler())?;
    write("unet", "config.json", &shapes::unet())?;
    write("vae", "config.json", &shapes::vae(scaling_factor(run, sources, to)?))?;
    write("text_encoder", "config.json", &shapes::text_encoder(vocab_size))?;
    write("clip", "config.json", &shapes::clip(vocab_size))?;
    write("clip", "preprocessor_config.json", &shapes::preprocessor()?)?;
    for folder in ["tokenizer", "clip"] {
        sources.tokenizer.save(out.join(folder))?;
    }
    save("text_encoder/model.safetensors", &text_tensors(&tensors(run, Part::Clip)?))?;
    Part::ALL.into_iter().try_for_each(|part| save(part.file(), &tensors(run, part)?))
}
