//! Models by name: found on this machine, or downloaded.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # std::fs::write(folder.path().join("model.safetensors"), "")?;
//! # let file = folder.path().join("model.safetensors").display().to_string();
//! let hub = hub::Hub::from_env()?;
//! assert_eq!(hub.resolve(&file, hub::ModelKind::Diffusion)?.origin, hub::Origin::Path);
//! # let hub = hub.with_models(folder.path());
//! # let hub = hub.with_cache(folder.path());
//! let missing = hub.resolve("sd2.1-base", hub::ModelKind::Diffusion).unwrap_err();
//! assert!(missing.to_string().contains("weights download sd2.1-base"));
//! # anyhow::Ok(())
//! ```
//!
//! A name is, in this order: a folder or a file; a folder among the models; a known model of the manifest, such as
//! `sd2.1-base`; a repository of the Hugging Face hub, `OWNER/NAME` or `OWNER/NAME@REVISION`. The last two are looked for in the folder of models
//! (`ATTNDREAMBOOTH_MODELS`, else `models` in the working folder) and in the Hugging Face cache (`HF_HUB_CACHE`, `HF_HOME`).
//! A download goes into the folder of models; `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and proxies are honoured.
//!
//! Invariants: asks the network in [`Hub::download`] alone. A file gets its final name only after its check; what has no
//! published hash is recorded when it is first obtained, in `weights-lock.json` beside the model, so that later changes are
//! seen. Prints nothing, needs no LibTorch, and never shows the token to anyone but the hub.

mod download;
mod environment;
mod manifest;
mod progress;
mod record;
mod repository;
mod transfer;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

pub use download::Options;
pub use manifest::{Licence, Model, ModelFile, Source};
pub use progress::{OnProgress, Progress, Stopped, size};
pub use record::{sha256, sha256_hex};

use environment::Environment;
use manifest::Manifest;
use record::Record;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// Stable Diffusion: a folder in the diffusers layout, or a single file.
    Diffusion,
    /// CLIP: a folder with `config.json` and weights.
    Clip,
}

/// Where a model was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The name is its path.
    Path,
    /// The folder of models.
    Models,
    /// The Hugging Face cache.
    Cache,
}

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The folder or file.
    pub path: PathBuf,
    /// Where it was found.
    pub origin: Origin,
}

/// A known model and how much of it is here.
#[derive(Debug, Clone)]
pub struct Listed<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its folder among the models, which need not exist.
    pub folder: PathBuf,
    /// How many of its files are in that folder.
    pub present: usize,
}

/// How a file compares with its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has the published hash.
    Published,
    /// It has the hash that was recorded when it was obtained.
    Recorded,
    /// No hash is known; this is the file's.
    Unknown(String),
    /// It is missing or different; says how.
    Wrong(String),
}

/// The models of this machine and of the hub.
#[derive(Debug, Clone)]
pub struct Hub {
    environment: Environment,
    manifest: Manifest,
}

/// What a name means that is no path.
enum Meaning {
    Known(Model),
    Repository { name: String, repo: String, revision: String },
}

impl Hub {
    /// The hub as the environment has it.
    ///
    /// # Errors
    /// When `HF_ENDPOINT` is no address.
    pub fn from_env() -> Result<Self> {
        Ok(Self { environment: Environment::read()?, manifest: Manifest::built_in()? })
    }

    /// With another folder of models.
    #[must_use]
    pub fn with_models(mut self, models: impl Into<PathBuf>) -> Self {
        self.environment.models = models.into();
        self
    }

    /// With another Hugging Face cache.
    #[must_use]
    pub fn with_cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.environment.cache = Some(cache.into());
        self
    }

    /// With another list of known models.
    ///
    /// # Errors
    /// When the file cannot be read or used.
    pub fn with_manifest(self, path: &Path) -> Result<Self> {
        Ok(Self { manifest: Manifest::read(path)?, ..self })
    }

    /// The folder that holds a folder for each model.
    pub fn models(&self) -> &Path {
        &self.environment.models
    }

    /// Finds a model on this machine. Asks nothing of the network.
    ///
    /// # Errors
    /// When it is not here; says how to get it.
    pub fn resolve(&self, name: &str, kind: ModelKind) -> Result<Located> {
        let path = Path::new(name);
        if path.exists() {
            return Ok(Located { path: path.to_owned(), origin: Origin::Path });
        }
        // A model of the user's own among the others.
        if let Some(path) = usable(&self.environment.models.join(name), kind).filter(|_| path.components().count() == 1)
        {
            return Ok(Located { path, origin: Origin::Models });
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let is_path = name.starts_with(['.', '/', '~'])
            || [".safetensors", ".ckpt"].iter().any(|end| name.ends_with(end))
            || parent.is_some_and(|parent| parent.is_dir() || parent == Path::new("models"));
        ensure!(
            !is_path,
            "there is no model folder or file {name}; `weights list` names models that can be downloaded"
        );
        let meaning = self.meaning(name)?;
        let (folders, sources) = self.places(&meaning);
        let found = folders.iter().find_map(|folder| usable(folder, kind)).map(|path| (path, Origin::Models));
        let cached = || {
            sources
                .iter()
                .flat_map(|source| self.environment.snapshots(source))
                .find_map(|folder| usable(&folder, kind))
        };
        if let Some((path, origin)) = found.or_else(|| cached().map(|path| (path, Origin::Cache))) {
            return Ok(Located { path, origin });
        }
        let state = match folders.iter().find(|folder| folder.exists()) {
            Some(folder) => format!("is incomplete in {}", folder.display()),
            None => "is not on this machine".to_owned(),
        };
        bail!("the model {name} {state}; `weights download {name}` downloads it")
    }

    /// Downloads a model, or what is missing or wrong of it, into the folder of models; what an interrupted download left is
    /// resumed. Calls `on_progress` in this thread.
    ///
    /// # Errors
    /// When a file is offered by none of its sources, cannot be written, or is not the published one; [`Stopped`] when
    /// `on_progress` has ended it.
    pub fn download(&self, name: &str, options: &Options, on_progress: &mut OnProgress<'_>) -> Result<Located> {
        if let Some(folder) = options.from.as_ref().filter(|folder| !folder.is_dir()) {
            bail!("files should be taken from {}, which is not a folder", folder.display());
        }
        let model = match self.meaning(name)? {
            Meaning::Known(model) => model,
            Meaning::Repository { name, repo, revision } => {
                repository::look_up(&name, &repo, &revision, &self.environment, options.wait)?
            }
        };
        let Licence { name: licence, url } = model.licence.clone();
        if on_progress(Progress::Licence { title: model.title.clone(), licence, url }).is_break() {
            return Err(Stopped.into());
        }
        let dir = self.environment.models.join(&model.name);
        download::download(&model, &dir, &self.environment, options, on_progress)?;
        let alone = model.files.first().filter(|_| model.files.len() == 1).map(|file| dir.join(&file.path));
        let path = alone.filter(|file| file.extension().is_some_and(|end| end == "safetensors")).unwrap_or(dir);
        Ok(Located { path, origin: Origin::Models })
    }

    /// The known models.
    ///
    /// # Errors
    /// When the record of one that is here is damaged.
    pub fn list(&self) -> Result<Vec<Listed<'_>>> {
        let listed = self.manifest.models.iter().map(|model| {
            let folder = self.environment.models.join(&model.name);
            let present = model.files.iter().filter(|file| folder.join(&file.path).is_file()).count();
            // Damage to the record is worth an error here too, before someone downloads for an hour.
            Record::read(&folder).with_context(|| format!("the record of {} cannot be used", model.name))?;
            Ok(Listed { model, folder, present })
        });
        listed.collect()
    }

    /// Reads every byte of a model's files, or of those of all models that are here, and calls `on_file` with the model's
    /// name, the file's path and the verdict.
    ///
    /// # Errors
    /// When a file is missing or different; names all of them.
    pub fn verify(&self, name: Option<&str>, on_file: &mut dyn FnMut(&str, &str, &Verdict)) -> Result<()> {
        let models = match name {
            Some(name) => vec![self.recorded(self.meaning(name)?)?],
            None => {
                let here = |model: &&Model| self.environment.models.join(&model.name).exists();
                let mut models: Vec<Model> = self.manifest.models.iter().filter(here).cloned().collect();
                let entries = fs::read_dir(&self.environment.models).into_iter().flatten().flatten();
                let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
                let mut repositories: Vec<String> = names
                    .filter_map(|name| name.split_once("--").map(|(owner, name)| format!("{owner}/{name}")))
                    .collect();
                repositories.sort();
                for repository in repositories {
                    models.extend(self.meaning(&repository).and_then(|meaning| self.recorded(meaning)).ok());
                }
                models
            }
        };
        ensure!(
            !models.is_empty(),
            "no model is in {}: `weights download NAME` downloads one",
            self.environment.models.display()
        );
        let mut wrong = Vec::new();
        for model in models {
            let folder = self.environment.models.join(&model.name);
            let record = Record::read(&folder)?;
            for file in &model.files {
                let recorded = record.files.get(&file.path).map(|entry| &*entry.sha256);
                let path = folder.join(&file.path);
                let verdict = match record::check(&path, file, file.sha256.as_deref().or(recorded)) {
                    _ if !path.is_file() => Verdict::Wrong("missing".to_owned()),
                    Err(reason) => Verdict::Wrong(format!("{reason:#}")),
                    Ok(_) if file.sha256.is_some() => Verdict::Published,
                    Ok(_) if recorded.is_some() => Verdict::Recorded,
                    Ok(found) => Verdict::Unknown(found),
                };
                on_file(&model.name, &file.path, &verdict);
                if matches!(verdict, Verdict::Wrong(_)) {
                    wrong.push(format!("{}/{}", model.name, file.path));
                }
            }
        }
        ensure!(
            wrong.is_empty(),
            "{} files are not as they should be ({}): `weights download` repairs them",
            wrong.len(),
            wrong.join(", ")
        );
        Ok(())
    }

    /// # Errors
    /// When `name` is neither a known model nor `OWNER/NAME`.
    fn meaning(&self, name: &str) -> Result<Meaning> {
        let source = Source::of_hub(name);
        // A repository that the manifest knows is the same model, with hashes and further sources.
        let is_known = |model: &&Model| {
            model.name == name
                || source.as_ref().is_some_and(|source| {
                    matches!(source, Source::Hub { revision, .. } if revision == "main")
                        && model.sources.contains(source)
                })
        };
        if let Some(model) = self.manifest.models.iter().find(is_known) {
            return Ok(Meaning::Known(model.clone()));
        }
        match source {
            Some(Source::Hub { repo, revision }) => {
                let suffix =
                    if revision == "main" { String::new() } else { format!("@{}", revision.replace('/', "--")) };
                Ok(Meaning::Repository { name: format!("{}{suffix}", repo.replace('/', "--")), repo, revision })
            }
            _ => {
                let names: Vec<&str> = self.manifest.models.iter().map(|model| &*model.name).collect();
                bail!(
                    "there is no model {name:?} (there are {}, and OWNER/NAME of the Hugging Face hub)",
                    names.join(", ")
                )
            }
        }
    }

    /// The folders and the sources of a model; a known one may also have its repository's name.
    fn places(&self, meaning: &Meaning) -> (Vec<PathBuf>, Vec<Source>) {
        let (names, sources) = match meaning {
            Meaning::Known(model) => {
                let last = |source: &Source| match source {
                    Source::Hub { repo, .. } => repo.rsplit('/').next().map(str::to_owned),
                    _ => None,
                };
                let repositories = model.sources.iter().filter_map(last);
                (std::iter::once(model.name.clone()).chain(repositories).collect::<Vec<_>>(), model.sources.clone())
            }
            Meaning::Repository { name, repo, revision } => {
                (vec![name.clone()], vec![Source::Hub { repo: repo.clone(), revision: revision.clone() }])
            }
        };
        (names.iter().map(|name| self.environment.models.join(name)).collect(), sources)
    }

    /// The model with the files that its record names, where the manifest does not.
    fn recorded(&self, meaning: Meaning) -> Result<Model> {
        let (name, model) = match meaning {
            Meaning::Known(model) => (model.name.clone(), Some(model)),
            Meaning::Repository { name, .. } => (name, None),
        };
        let folder = self.environment.models.join(&name);
        ensure!(folder.is_dir(), "{name} is not in {}: download it first", folder.display());
        if let Some(model) = model {
            return Ok(model);
        }
        let record = Record::read(&folder)?;
        let files = record.files.iter().map(|(path, entry)| ModelFile {
            path: path.clone(),
            size: Some(entry.size),
            ..ModelFile::default()
        });
        let files: Vec<ModelFile> = files.collect();
        ensure!(!files.is_empty(), "{} has no record of where its files came from", folder.display());
        let licence = Licence { name: String::new(), url: String::new() };
        Ok(Model { title: name.clone(), name, licence, sources: Vec::new(), files })
    }
}

/// The model in `folder`, or the only checkpoint there, if it seems complete.
fn usable(folder: &Path, kind: ModelKind) -> Option<PathBuf> {
    let is_tensors = |path: &PathBuf| path.extension().is_some_and(|end| end == "safetensors") && path.is_file();
    let tensors = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_tensors).collect()
    };
    let complete = |folder: &Path| folder.join("config.json").is_file() && !tensors(folder).is_empty();
    match kind {
        ModelKind::Clip => complete(folder).then(|| folder.to_owned()),
        ModelKind::Diffusion => {
            let components = ["unet", "vae", "text_encoder"].iter().all(|name| complete(&folder.join(name)));
            if components && folder.join("scheduler/scheduler_config.json").is_file() {
                return Some(folder.to_owned());
            }
            let alone = !folder.join("config.json").exists() && !folder.join("unet").exists();
            <[PathBuf; 1]>::try_from(tensors(folder)).ok().filter(|_| alone).map(|[file]| file)
        }
    }
}
