//! The base models that pages offer.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use hub::{Hub, ModelKind};

use crate::folder::names;
use crate::name::Name;

/// A base model that pages offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) name: Name,
    /// A folder or a file.
    pub(crate) path: PathBuf,
}

/// The models that were named, those in the folder of models that are there as a whole, and other models in that folder.
pub(crate) fn find(named: &[PathBuf]) -> Result<Vec<Model>> {
    let hub = Hub::from_env()?;
    let mut models: Vec<Model> = Vec::new();
    let mut add = |path: PathBuf| {
        let Ok(path) = fs::canonicalize(path) else { return };
        let name = path.file_name().and_then(|name| name.to_str()?.parse::<Name>().ok());
        if let Some(name) = name.filter(|name| models.iter().all(|model| model.name != *name)) {
            models.push(Model { name, path });
        }
    };
    for model in named {
        let found = if model.exists() {
            model.clone()
        } else {
            hub.resolve(&model.to_string_lossy(), ModelKind::Diffusion)?.path
        };
        add(found);
    }
    for name in names(hub.models()) {
        let path = hub.models().join(name.as_str());
        let is_file = path.is_file() && path.extension().is_some_and(|end| end == "safetensors");
        // A download that is not complete lacks files.
        let known = hub.list()?.into_iter().find(|listed| listed.model.name == name.as_str());
        let complete = known.is_none_or(|listed| listed.present == listed.model.files.len());
        if is_file || path.join("model_index.json").is_file() && complete {
            add(path);
        }
    }
    Ok(models)
}
