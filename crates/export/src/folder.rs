//! Model folders in the diffusers layout.

use std::path::Path;

use anyhow::{Result, bail};
use model_files::{BaseModel, Component, ModelFolder};
use serde_json::{Map, Value, json};
use tch::Tensor;
use weights::{Archive, read_config};

use crate::base::{Base, Replaced, Unet};
use crate::family::Family;
use crate::staging::{copy_file, copy_folder, is_weights, new_folder, new_subfolder};
use crate::text_encoder::{self, load_as_f32};

/// Components that a pipeline can do without.
const OPTIONAL: [&str; 3] = ["feature_extractor", "image_encoder", "safety_checker"];
/// A model's card and licence.
const DOCUMENTS: [&str; 4] = ["LICENSE", "LICENSE.md", "LICENSE.txt", "README.md"];

/// The file in an exported folder that names the placeholder token.
pub const USAGE: &str = "usage.txt";

/// Writes the model `base` to the new folder `out`, with `replaced` components and with new tokens, each its name and its
/// embedding(s) [vectors, width], in the tokenizer and the text encoder, where these are given.
///
/// `StableDiffusionPipeline.from_pretrained(out)` loads it, all components as f32. A variant of weights
/// (`*.fp16.safetensors`) that stands alone gets the plain name, which loaders look for. Everything else is copied as it
/// is; [`USAGE`] says how prompts name the new tokens. `out` appears when it is complete.
///
/// # Errors
/// When `out` exists and is not empty, a component is missing, or the U-Net or an embedding does not belong to the model, or
/// two tokens have one name.
pub fn diffusers_folder(
    base: &BaseModel,
    out: &Path,
    replaced: &Replaced,
    embeddings: &[(&str, &Tensor)],
) -> Result<()> {
    let base = Base::open(base)?;
    let index = model_index(&base)?;
    if let Some(unet) = &replaced.unet {
        base.check(unet)?;
    }
    // Both are written by `text_encoder`.
    let changed = !embeddings.is_empty() || replaced.text_encoder.is_some();
    new_folder(out, |out| {
        match base.model.folder() {
            Some(folder) => from_folder(folder, out, &index, replaced.unet, changed)?,
            None => from_single_file(base.model, out, replaced.unet, changed)?,
        }
        if changed {
            text_encoder::write(base.model, out, replaced.text_encoder, embeddings)?;
        }
        if !embeddings.is_empty() {
            let names: Vec<&str> = embeddings.iter().map(|(placeholder, _)| *placeholder).collect();
            let usage = format!("Prompts name what this model has learned {}.\n", names.join(" and "));
            atomic::write(&out.join(USAGE), usage)?;
        }
        atomic::write(&out.join("model_index.json"), serde_json::to_vec_pretty(&index)?)
    })
}

/// Copies a folder's components, card and licence; tokenizer and text encoder only where they are not `changed`.
fn from_folder(
    folder: &ModelFolder,
    out: &Path,
    index: &Map<String, Value>,
    unet: Option<Unet>,
    changed: bool,
) -> Result<()> {
    for (component, class) in index.iter().filter(|(_, class)| is_component(class)) {
        let (from, to) = (folder.component(component), out.join(component));
        match (component.as_str(), &unet) {
            ("unet", Some(Unet::Folder(folder))) => copy_folder(folder, &to, |_| true)?,
            ("unet", Some(Unet::Tensors(tensors))) => {
                copy_folder(&from, &to, |name| !is_weights(name))?;
                weights::save(&to.join(Component::Unet.weights_file()), *tensors)?;
            }
            ("text_encoder" | "tokenizer" | "text_encoder_2" | "tokenizer_2", _) if changed => {}
            _ => copy_component(&from, &to)?,
        }
        let config = to.join("config.json");
        if !is_of_diffusers(class) && config.is_file() {
            let mut values: Map<String, Value> = read_config(&config)?;
            load_as_f32(&mut values);
            atomic::write(&config, serde_json::to_vec_pretty(&values)?)?;
        }
    }
    for name in DOCUMENTS.iter().filter(|name| folder.path().join(name).is_file()) {
        copy_file(&folder.path().join(name), &out.join(name))?;
    }
    Ok(())
}

/// Copies a component, its weights under the plain name.
fn copy_component(from: &Path, to: &Path) -> Result<()> {
    let archive = Archive::open_folder(from).ok();
    let Some((archive, variant)) = archive.as_ref().and_then(|archive| Some((archive, archive.variant()?))) else {
        return copy_folder(from, to, |_| true);
    };
    copy_folder(from, to, |name| !is_weights(name))?;
    copy_file(&variant.path, &to.join(&variant.plain_name))?;
    for shard in archive.files().filter(|path| **path != variant.path) {
        copy_file(shard, &to.join(shard.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Writes a single file's components; tokenizer and text encoder only where they are not `changed`.
fn from_single_file(model: &BaseModel, out: &Path, unet: Option<Unet>, changed: bool) -> Result<()> {
    let write_json = |path: &Path, json: &Map<String, Value>| atomic::write(path, serde_json::to_vec_pretty(json)?);
    for &component in model.components() {
        let to = out.join(component.folder());
        match (component, &unet) {
            (Component::Unet, Some(Unet::Folder(folder))) => {
                copy_folder(folder, &to, |_| true)?;
                continue;
            }
            (Component::TextEncoder | Component::TextEncoder2, _) if changed => continue,
            _ => new_subfolder(&to)?,
        }
        let mut config = model.config(component)?;
        if matches!(component, Component::TextEncoder | Component::TextEncoder2) {
            load_as_f32(&mut config);
        }
        write_json(&to.join("config.json"), &config)?;
        let weights = to.join(component.weights_file());
        match (component, &unet) {
            (Component::Unet, Some(Unet::Tensors(tensors))) => weights::save(&weights, *tensors)?,
            _ => weights::save(&weights, model.archive(component)?.tensors()?)?,
        }
    }
    if !changed {
        model.tokenizer()?.save(out.join("tokenizer"))?;
        if model.is_sdxl() {
            model.second_tokenizer()?.save(out.join("tokenizer_2"))?;
        }
    }
    new_subfolder(&out.join("scheduler"))?;
    write_json(&out.join("scheduler/scheduler_config.json"), &model.scheduler_json()?)
}

/// Whether a component is loaded by diffusers, and not by transformers or by code of the pipeline above it.
fn is_of_diffusers(class: &Value) -> bool {
    class.get(0).is_some_and(|library| library == "diffusers")
}

/// Whether an entry of model_index.json names a component: its library and class, which are null for none.
fn is_component(class: &Value) -> bool {
    class.get(0).is_some_and(Value::is_string)
}

/// The model's model_index.json, or a new one where it has none, without the optional components that it lacks.
fn model_index(base: &Base) -> Result<Map<String, Value>> {
    let path = base.model.path().join("model_index.json");
    let mut index: Map<String, Value> = if path.exists() {
        json::read(&path, "the index of a model's components")?
    } else {
        let scheduler = base.model.scheduler_json()?;
        let scheduler = scheduler.get("_class_name").and_then(Value::as_str).unwrap_or("PNDMScheduler");
        let index = json!({
            "_class_name": "StableDiffusionPipeline",
            "scheduler": ["diffusers", scheduler],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        });
        let mut index: Map<String, Value> = serde_json::from_value(index)?;
        if base.family == Family::Sdxl {
            index.extend([
                ("_class_name".to_owned(), json!("StableDiffusionXLPipeline")),
                ("force_zeros_for_empty_prompt".to_owned(), json!(true)),
                ("text_encoder_2".to_owned(), json!(["transformers", "CLIPTextModelWithProjection"])),
                ("tokenizer_2".to_owned(), json!(["transformers", "CLIPTokenizer"])),
            ]);
        }
        index
    };
    // A single file's are all written.
    let is_there = |name: &str| base.model.folder().is_none_or(|folder| folder.component(name).is_dir());
    let absent: Vec<String> = index
        .iter()
        .filter(|(name, class)| is_component(class) && !is_there(name))
        .map(|(name, _)| name.clone())
        .collect();
    for name in absent {
        if !OPTIONAL.contains(&name.as_str()) {
            bail!("{} names the component {name}, but there is no such folder; fetch the model again", path.display());
        }
        index.insert(name, json!([null, null]));
    }
    // SDXL has none.
    if base.family != Family::Sdxl && !index.get("safety_checker").is_some_and(is_component) {
        for name in ["feature_extractor", "safety_checker"] {
            index.entry(name).or_insert(json!([null, null]));
        }
        index.insert("requires_safety_checker".to_owned(), false.into());
    }
    Ok(index)
}
