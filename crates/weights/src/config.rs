//! Reading the JSON configurations that stand beside weights; other files are for [`json::read`], in words of their own.

use std::path::Path;

use anyhow::Result;
use serde::de::DeserializeOwned;

/// Reads a model's `config.json` into its config type.
///
/// # Errors
/// Names the file and the key or value that does not fit.
pub fn read_config<C: DeserializeOwned>(path: &Path) -> Result<C> {
    json::read(path, "the configuration of this kind of model")
}
