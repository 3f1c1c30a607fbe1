//! Reading a component's folder in transformers' layout.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// The part of any config.json that says what it is of.
#[derive(Deserialize)]
struct Header {
    /// transformers' word.
    model_type: Option<String>,
    /// diffusers' word.
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    text_config: Option<IgnoredAny>,
    vision_config: Option<IgnoredAny>,
}

/// Reads `folder`'s config.json, which must be of a `model_type`.
pub(crate) fn read_config<C: DeserializeOwned>(folder: &Path, model_type: &str) -> Result<C> {
    let path = folder.join("config.json");
    let header: Header = weights::read_config(&path)?;
    let found = header.model_type.or(header.class_name);
    let Some(found) = found else {
        bail!("{} lacks the key model_type; give the folder of a model of type {model_type}", path.display());
    };
    if found != model_type {
        bail!("{} is of a model of type {found}, but one of type {model_type} is needed here", path.display());
    }
    if model_type == "clip" {
        if header.text_config.is_none() {
            return Err(no_tower(&path, "text encoder", "text_config"));
        }
        if header.vision_config.is_none() {
            return Err(no_tower(&path, "image encoder", "vision_config"));
        }
    }
    weights::read_config(&path)
}

/// Makes sure that weights have something of both towers before each missing tensor is listed.
pub(crate) fn check_towers(folder: &Path, names: &[String]) -> Result<()> {
    for (tower, prefix) in [("text encoder", "text_model."), ("image encoder", "vision_model.")] {
        if !names.iter().any(|name| name.starts_with(prefix)) {
            return Err(no_tower(folder, tower, &format!("{prefix}*")));
        }
    }
    Ok(())
}

fn no_tower(place: &Path, tower: &str, missing: &str) -> anyhow::Error {
    anyhow::anyhow!("{} lacks the {tower} ({missing}); give the folder of a whole CLIP", place.display())
}

/// Adds the folder's path to what is wrong with the numbers in its config.
pub(crate) fn in_config<T>(folder: &Path, result: Result<T>) -> Result<T> {
    result.with_context(|| format!("{} describes no working model", folder.join("config.json").display()))
}
