//! The list of models: `crates/hub/data/manifest.json`.

use std::collections::HashSet;
use std::path::{Component, Path};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::source::Source;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// What a reader of the file should know; not used.
    #[serde(rename = "about")]
    _about: Vec<String>,
    pub(super) models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    /// The name on the command line and of the folder.
    pub(super) name: String,
    pub(super) title: String,
    pub(super) licence: Licence,
    /// Where the files are offered, best first.
    pub(super) sources: Vec<Source>,
    pub(super) files: Vec<ModelFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Licence {
    pub(super) name: String,
    pub(super) url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    /// Within the model's folder and at every source.
    pub(super) path: String,
    /// In bytes, where known.
    pub(super) size: Option<u64>,
    /// In lower-case hexadecimal, where known: nothing here is guessed.
    pub(super) sha256: Option<String>,
    /// Instead of the model's sources.
    #[serde(default)]
    pub(super) sources: Vec<Source>,
}

impl Manifest {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let manifest: Self = json::read(path, "a list of models")?;
        manifest.check().with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(manifest)
    }

    pub(super) fn model(&self, name: &str) -> anyhow::Result<&Model> {
        let names = || self.models.iter().map(|model| &*model.name).collect::<Vec<_>>().join(", ");
        let found = self.models.iter().find(|model| model.name == name);
        found.with_context(|| format!("there is no model {name:?} (there are {})", names()))
    }

    fn check(&self) -> anyhow::Result<()> {
        let mut names = HashSet::new();
        for model in &self.models {
            let name = &model.name;
            ensure!(names.insert(name), "the model {name} is listed twice");
            ensure!(is_inside(name) && !name.contains('/'), "the model name {name:?} cannot be a folder's");
            let mut paths = HashSet::new();
            for file in &model.files {
                let path = &file.path;
                ensure!(paths.insert(path), "{name} lists {path} twice");
                ensure!(is_inside(path), "{name} lists {path:?}, which is not inside its folder");
                ensure!(!model.sources_of(file).is_empty(), "{name} has no source for {path}");
                if let Some(hash) = &file.sha256 {
                    let is_hash =
                        hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                    ensure!(is_hash, "{name} gives {path} a sha256 that is not 64 lower-case hexadecimal digits");
                }
            }
        }
        Ok(())
    }
}

impl Model {
    /// Where `file` is offered, best first.
    pub(super) fn sources_of<'a>(&'a self, file: &'a ModelFile) -> &'a [Source] {
        if file.sources.is_empty() { &self.sources } else { &file.sources }
    }
}

fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest::read(&crate::workspace::root().join("crates/hub/data/manifest.json")).unwrap()
    }

    #[test]
    fn every_large_file_has_a_size_a_hash_and_two_sources() {
        for model in manifest().models {
            assert!(model.files.iter().any(|file| file.path.ends_with(".safetensors")), "{}", model.name);
            for file in &model.files {
                assert!(model.sources_of(file).len() >= 2, "{} {}", model.name, file.path);
                if !file.path.ends_with(".json") && model.name != "openclip-vit-h14"
                    || file.path.ends_with(".safetensors")
                {
                    assert!(file.size.is_some() && file.sha256.is_some(), "{} {}", model.name, file.path);
                }
            }
        }
    }

    /// These two are fixed by arithmetic: 4 bytes for each of the published parameters, plus the header.
    #[test]
    fn unet_sizes_fit_their_parameter_counts() {
        for (name, parameters) in [("sd2.1-base", 865_910_724), ("sd2.1", 865_910_724), ("sd1.5", 859_520_964)] {
            let manifest = manifest();
            let model = manifest.model(name).unwrap();
            let unet = model.files.iter().find(|file| file.path.starts_with("unet/diffusion")).unwrap();
            let header = unet.size.unwrap() - 4 * parameters;
            assert!((50_000..120_000).contains(&header), "{name} {header}");
        }
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../../b", "", "."] {
            assert!(!is_inside(path), "{path:?}");
        }
        assert!(is_inside("unet/config.json"));
    }

    #[test]
    fn an_unknown_model_is_answered_with_the_known() {
        let message = manifest().model("sd3").unwrap_err().to_string();
        assert!(message.contains("\"sd3\"") && message.contains("sd2.1-base"), "{message}");
    }
}
