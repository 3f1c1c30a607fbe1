//! Reading the JSON configs that stand beside weights.

use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// Reads a model's `config.json` (or another JSON file) into its config type.
///
/// # Errors
/// Names the file and the key or value that does not fit.
pub fn read_config<C: DeserializeOwned>(path: &Path) -> Result<C> {
    let text = limits::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut json = serde_json::Deserializer::from_str(&text);
    // Names the key as well as the place.
    serde_path_to_error::deserialize(&mut json)
        .with_context(|| format!("{} does not describe this kind of model", path.display()))
}
