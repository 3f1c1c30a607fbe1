//! A whole model folder in the diffusers layout.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use tch::Tensor;
use weights::{Archive, read_config};

use crate::base::{Base, SCHEDULER, Unet};
use crate::staging::{copy_file, copy_folder, is_weights, new_folder};
use crate::text_encoder::{self, load_as_f32};

/// Components that a pipeline can do without.
const OPTIONAL: [&str; 3] = ["feature_extractor", "image_encoder", "safety_checker"];
/// What describes a model to people.
const PAPERS: [&str; 4] = ["LICENSE", "LICENSE.md", "LICENSE.txt", "README.md"];

/// Writes the model in `base` to the new folder `out`, with another `unet` and with a new token, its name and its
/// embedding(s) [vectors, width], in the tokenizer and the text encoder, where these are given.
///
/// `StableDiffusionPipeline.from_pretrained(out)` loads it, all components as f32. A variant of weights (`*.fp16.safetensors`)
/// that stands alone gets the plain name, without which nobody finds it. Everything else is taken over as it is; unchanged weights
/// are hard links, which cost no space, where `out` is on the disk of `base`. `out` appears when it is complete.
///
/// # Errors
/// When `out` is there and not empty, a component is missing, or what was learned does not belong to the model.
pub fn diffusers_folder(
    base: &Path,
    out: &Path,
    unet: Option<Unet>,
    embeddings: Option<(&str, &Tensor)>,
) -> Result<()> {
    let base = Base::open(base)?;
    let index = model_index(&base)?;
    if let Some(unet) = &unet {
        base.check(unet)?;
    }
    new_folder(out, |out| {
        for (component, class) in index.iter().filter(|(_, class)| is_component(class)) {
            let (from, to) = (base.folder.join(component), out.join(component));
            match (component.as_str(), &unet) {
                ("unet", Some(Unet::Folder(folder))) => copy_folder(folder, &to, |_| true)?,
                ("unet", Some(Unet::Tensors(tensors))) => {
                    copy_folder(&from, &to, |name| !is_weights(name))?;
                    weights::save(&to.join("diffusion_pytorch_model.safetensors"), *tensors)?;
                }
                ("text_encoder" | "tokenizer", _) if embeddings.is_some() => {}
                _ => copy_component(&from, &to)?,
            }
            let config = to.join("config.json");
            if !is_of_diffusers(class) && config.is_file() {
                let mut values: Map<String, Value> = read_config(&config)?;
                load_as_f32(&mut values);
                atomic::write(&config, serde_json::to_vec_pretty(&values)?)?;
            }
        }
        if let Some((placeholder, rows)) = embeddings {
            text_encoder::write(&base.folder, out, placeholder, rows)?;
        }
        for name in PAPERS.iter().filter(|name| base.folder.join(name).is_file()) {
            copy_file(&base.folder.join(name), &out.join(name))?;
        }
        atomic::write(&out.join("model_index.json"), serde_json::to_vec_pretty(&index)?)
    })
}

/// A component as it is, but that its weights have the plain name.
fn copy_component(from: &Path, to: &Path) -> Result<()> {
    let archive = Archive::open_folder(from).ok();
    let Some((archive, variant)) = archive.as_ref().and_then(|archive| Some((archive, archive.variant()?))) else {
        return copy_folder(from, to, |_| true);
    };
    copy_folder(from, to, |name| !is_weights(name))?;
    copy_file(&variant.path, &to.join(&variant.plain_name))?;
    for shard in archive.paths().filter(|path| **path != variant.path) {
        copy_file(shard, &to.join(shard.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Whether a component is loaded by diffusers, and not by transformers or by code of the pipeline above it.
fn is_of_diffusers(class: &Value) -> bool {
    class.get(0).is_some_and(|library| library == "diffusers")
}

/// Whether an entry of model_index.json names a component: its library and class, which are null for none.
fn is_component(class: &Value) -> bool {
    class.get(0).is_some_and(Value::is_string)
}

/// The model's model_index.json, or one made up where it has none, without the optional components that it lacks.
fn model_index(base: &Base) -> Result<Map<String, Value>> {
    let path = base.folder.join("model_index.json");
    let mut index: Map<String, Value> = if path.exists() {
        json::read(&path, "the index of a model's components")?
    } else {
        let scheduler: Map<String, Value> =
            json::read(&base.folder.join("scheduler/scheduler_config.json"), SCHEDULER)?;
        let scheduler = scheduler.get("_class_name").and_then(Value::as_str).unwrap_or("PNDMScheduler");
        let index = json!({
            "_class_name": "StableDiffusionPipeline",
            "scheduler": ["diffusers", scheduler],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        });
        serde_json::from_value(index)?
    };
    let absent: Vec<String> = index
        .iter()
        .filter(|(name, class)| is_component(class) && !base.folder.join(name).is_dir())
        .map(|(name, _)| name.clone())
        .collect();
    for name in absent {
        if !OPTIONAL.contains(&name.as_str()) {
            bail!("{} names the component {name}, but there is no such folder; fetch the model again", path.display());
        }
        index.insert(name, json!([null, null]));
    }
    if !index.get("safety_checker").is_some_and(is_component) {
        for name in ["feature_extractor", "safety_checker"] {
            index.entry(name).or_insert(json!([null, null]));
        }
        index.insert("requires_safety_checker".to_owned(), false.into());
    }
    Ok(index)
}
