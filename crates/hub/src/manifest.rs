//! The known models, their files and where these are offered: `data/manifest.json`.

use std::collections::HashSet;
use std::fmt;
use std::path::{Component, Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The list of known models.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// For readers of the file.
    #[serde(rename = "about")]
    _about: Vec<String>,
    pub(crate) models: Vec<Model>,
}

/// A published model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name on the command line and of the folder.
    pub name: String,
    /// What it is called in full.
    pub title: String,
    /// What whoever uses it is bound by.
    pub licence: Licence,
    /// Where the files are offered, best first.
    pub sources: Vec<Source>,
    /// All that the program reads of it.
    pub files: Vec<ModelFile>,
}

/// A licence.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// Its name.
    pub name: String,
    /// Where its text is.
    pub url: String,
}

/// A file of a published model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Within the model's folder and at every source.
    pub path: String,
    /// In bytes, where known.
    pub size: Option<u64>,
    /// In lower-case hexadecimal, where the publisher tells it.
    pub sha256: Option<String>,
    /// Instead of the model's sources.
    #[serde(default)]
    pub sources: Vec<Source>,
}

impl Manifest {
    /// The one that comes with the program.
    pub(crate) fn built_in() -> Result<Self> {
        Ok(json::parse(include_str!("../data/manifest.json"))?)
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let manifest: Self = json::read(path, "a list of models")?;
        manifest.check().with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        let mut names = HashSet::new();
        for model in &self.models {
            let name = &model.name;
            ensure!(names.insert(name), "the model {name} is listed twice");
            ensure!(is_inside(name) && !name.contains('/'), "the model name {name:?} cannot be a folder's");
            model.check()?;
        }
        Ok(())
    }
}

impl Model {
    /// Refuses files outside the model's folder, and those that no source offers.
    pub(crate) fn check(&self) -> Result<()> {
        let name = &self.name;
        let mut paths = HashSet::new();
        for ModelFile { path, sha256, .. } in &self.files {
            ensure!(paths.insert(path), "{name} lists {path} twice");
            ensure!(is_inside(path), "{name} lists {path:?}, which is not inside its folder");
            let is_hash =
                |hash: &str| hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            ensure!(
                sha256.as_deref().is_none_or(is_hash),
                "{name} gives {path} a sha256 that is not 64 lower-case hexadecimal digits"
            );
        }
        for file in &self.files {
            ensure!(!self.sources_of(file).is_empty(), "{name} has no source for {}", file.path);
        }
        Ok(())
    }

    /// Where `file` is offered, best first.
    pub(crate) fn sources_of<'a>(&'a self, file: &'a ModelFile) -> &'a [Source] {
        if file.sources.is_empty() { &self.sources } else { &file.sources }
    }
}

fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// A place that offers a model's files, written `hub:OWNER/NAME[@REVISION]`, `modelscope:OWNER/NAME` or as an address
/// in which `{path}` stands for the file's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Source {
    /// A repository of the Hugging Face hub.
    Hub {
        /// `OWNER/NAME`.
        repo: String,
        /// A branch, a tag or a commit.
        revision: String,
    },
    /// A repository of ModelScope.
    ModelScope {
        /// `OWNER/NAME`.
        repo: String,
    },
    /// Any web server.
    Address(String),
}

impl Source {
    /// `OWNER/NAME[@REVISION]` of the Hugging Face hub.
    pub(crate) fn of_hub(place: &str) -> Option<Self> {
        let (repo, revision) = place.split_once('@').unwrap_or((place, "main"));
        (is_repo(repo) && !revision.is_empty() && !revision.contains(".."))
            .then(|| Self::Hub { repo: repo.to_owned(), revision: revision.to_owned() })
    }
}

/// Whether `text` is `OWNER/NAME`, in the characters that the hub allows.
fn is_repo(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.starts_with('.')
            && name.bytes().any(|byte| byte.is_ascii_alphanumeric())
            && !name.contains("..")
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    text.split('/').count() == 2 && text.split('/').all(is_name)
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(source) = text.strip_prefix("hub:").and_then(Self::of_hub) {
            return Ok(source);
        }
        if let Some(repo) = text.strip_prefix("modelscope:").filter(|repo| is_repo(repo)) {
            return Ok(Self::ModelScope { repo: repo.to_owned() });
        }
        if text.starts_with("http") && text.contains("{path}") {
            return Ok(Self::Address(text));
        }
        Err(format!("{text:?} is none of hub:OWNER/NAME[@REVISION], modelscope:OWNER/NAME and http...{{path}}"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repo, revision } if revision == "main" => write!(formatter, "{repo}"),
            // A commit is told by its first digits.
            Self::Hub { repo, revision } => write!(formatter, "{repo}@{}", revision.get(..12).unwrap_or(revision)),
            Self::ModelScope { repo } => write!(formatter, "ModelScope {repo}"),
            Self::Address(template) => write!(formatter, "{}", template.replace("/{path}", "")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_large_file_has_a_size_a_hash_and_two_sources() {
        let manifest = Manifest::built_in().unwrap();
        manifest.check().unwrap();
        for model in manifest.models {
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

    /// These are fixed by arithmetic: 4 or 2 bytes for each of the published parameters, plus the header.
    #[test]
    fn unet_sizes_fit_their_parameter_counts() {
        let manifest = Manifest::built_in().unwrap();
        for (name, parameters, bytes) in [
            ("sd2.1-base", 865_910_724, 4),
            ("sd2.1", 865_910_724, 4),
            ("sd1.5", 859_520_964, 4),
            ("sdxl-base", 2_567_463_684, 4),
            ("sdxl-base-fp16", 2_567_463_684, 2),
        ] {
            let model = manifest.models.iter().find(|model| model.name == name).unwrap();
            let unet = model.files.iter().find(|file| file.path.starts_with("unet/diffusion")).unwrap();
            let header = unet.size.unwrap() - bytes * parameters;
            assert!((50_000..250_000).contains(&header), "{name} {header}");
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
    fn sources_are_repositories_or_addresses() {
        for wrong in
            ["hub:a", "hub:a/b@", "hub:a/../b", "hub:a/..", "modelscope:", "https://x.example/", "ftp://x/{path}"]
        {
            assert!(Source::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!(Source::of_hub("a/b@v1").unwrap().to_string(), "a/b@v1");
        for wrong in ["a", "a/b/c", "../b", "./model", "/a", "a/", "~/x", "a b/c", "a/b@../c"] {
            assert_eq!(Source::of_hub(wrong), None, "{wrong}");
        }
    }
}
