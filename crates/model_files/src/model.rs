//! A base model, whichever its layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use scheduler::SchedulerConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tch::{Device, Kind};
use tokenizer::Tokenizer;
use weights::{Archive, LoadError, Parameters, Scope};

use crate::folder::image_size;
use crate::single_file::SingleFile;
use crate::{Component, ModelFolder, ModelOptions};

/// A Stable Diffusion model on disk: a folder in the diffusers layout, or a single file.
#[derive(Debug, Clone)]
pub struct BaseModel {
    path: PathBuf,
    layout: Layout,
}

#[derive(Debug, Clone)]
enum Layout {
    Folder(ModelFolder),
    SingleFile(Box<SingleFile>),
}

impl BaseModel {
    /// Opens a model without reading its weights.
    ///
    /// # Errors
    /// Says what is missing, what the path holds instead of a model, or which option a single file needs.
    pub fn open(path: &Path, options: &ModelOptions) -> Result<Self> {
        let shown = path.display();
        let named_as_file = path.extension().is_some_and(|extension| extension == "safetensors" || extension == "ckpt");
        ensure!(
            path.exists() || !named_as_file,
            "there is no model file {shown}; name a checkpoint of Stable Diffusion 1.x, 2.x or XL, or a folder in the diffusers \
             layout"
        );
        let layout = if path.is_file() {
            Layout::SingleFile(Box::new(SingleFile::open(path, options)?))
        } else {
            let folder = ModelFolder::open(path)?;
            ensure!(
                options.is_default(),
                "{shown} is a folder, whose configs and tokenizer count: --tokenizer, --prediction-type and --model-config are \
                 for a model in a single file"
            );
            Layout::Folder(folder)
        };
        Ok(Self { path: path.to_owned(), layout })
    }

    /// The folder or the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder, if the model is one.
    pub fn folder(&self) -> Option<&ModelFolder> {
        match &self.layout {
            Layout::Folder(folder) => Some(folder),
            Layout::SingleFile(_) => None,
        }
    }

    /// Whether it is SDXL, which has two text encoders.
    pub fn is_sdxl(&self) -> bool {
        match &self.layout {
            Layout::Folder(folder) => folder.is_sdxl(),
            Layout::SingleFile(file) => file.is_sdxl(),
        }
    }

    /// The networks that it has.
    pub fn components(&self) -> &'static [Component] {
        Component::of(self.is_sdxl())
    }

    /// What the user should know of how a single file is read.
    pub fn notes(&self) -> &[String] {
        match &self.layout {
            Layout::Folder(_) => &[],
            Layout::SingleFile(file) => file.notes(),
        }
    }

    /// The config of a component, as its `config.json` has it.
    ///
    /// # Errors
    /// Names the file and the key that cannot be read.
    pub fn config<C: DeserializeOwned>(&self, component: Component) -> Result<C> {
        match &self.layout {
            Layout::Folder(folder) => weights::read_config(&folder.component(component.folder()).join("config.json")),
            Layout::SingleFile(file) => {
                let config =
                    file.config(component).with_context(|| format!("there is no {}", self.config_place(component)))?;
                of_map(config).with_context(|| self.config_place(component))
            }
        }
    }

    /// Where a component's config stands, for messages.
    pub fn config_place(&self, component: Component) -> String {
        let folder = match &self.layout {
            Layout::Folder(folder) => Some(folder),
            Layout::SingleFile(file) => file.config_folder(),
        };
        match folder {
            Some(folder) => folder.component(component.folder()).join("config.json").display().to_string(),
            None => format!("the {} of {}", component.folder(), self.path.display()),
        }
    }

    /// The weights of a component under diffusers' names.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn archive(&self, component: Component) -> Result<Archive> {
        match &self.layout {
            Layout::Folder(folder) => Ok(Archive::open_folder(&folder.component(component.folder()))?),
            Layout::SingleFile(file) => file.archive(component),
        }
    }

    /// Builds a component with `new`, which has its config, as [`weights::build`] does. Of a single file, tensors that do not
    /// fit are named in both layouts.
    ///
    /// # Errors
    /// As [`weights::build`].
    pub fn build<M>(
        &self,
        component: Component,
        to: (Kind, Device),
        new: impl FnOnce(&Scope) -> Result<M>,
    ) -> Result<(M, Parameters)> {
        let new = |vs: &Scope| new(vs).with_context(|| self.config_place(component));
        let built = weights::build(&self.archive(component)?, to, new);
        let Layout::SingleFile(file) = &self.layout else { return built };
        built.map_err(|error| match error.downcast::<LoadError>() {
            Ok(LoadError { source, problems }) => {
                let both = |name: String| match file.original_name(component, &name) {
                    Some(original) => format!("{name} (in the file {original})"),
                    None => name,
                };
                let problems = problems.into_iter().map(|(name, problem)| (both(name), problem)).collect();
                LoadError { source, problems }.into()
            }
            Err(other) => other,
        })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.layout {
            Layout::Folder(folder) => Ok(Tokenizer::load(folder.component("tokenizer"))?),
            Layout::SingleFile(file) => file.tokenizer(),
        }
    }

    /// SDXL's second tokenizer, which pads otherwise.
    ///
    /// # Errors
    /// When it cannot be read, or the model is no SDXL.
    pub fn second_tokenizer(&self) -> Result<Tokenizer> {
        ensure!(self.is_sdxl(), "{} has no second tokenizer", self.path.display());
        match &self.layout {
            Layout::Folder(folder) => Ok(Tokenizer::load(folder.component(SECOND_TOKENIZER))?),
            Layout::SingleFile(file) => file.second_tokenizer(),
        }
    }

    /// Whether an absent negative prompt means zeros in place of the empty prompt's hidden states, as it does for SDXL unless its
    /// `model_index.json` says otherwise (`force_zeros_for_empty_prompt`).
    ///
    /// # Errors
    /// When `model_index.json` cannot be read.
    pub fn zeros_for_no_prompt(&self) -> Result<bool> {
        let folder = match &self.layout {
            Layout::Folder(folder) => Some(folder),
            Layout::SingleFile(file) => file.config_folder(),
        };
        let Some(folder) = folder.filter(|folder| folder.is_sdxl()) else { return Ok(self.is_sdxl()) };
        let path = folder.index();
        let index: Map<String, Value> = if path.exists() { weights::read_config(&path)? } else { Map::new() };
        Ok(index.get("force_zeros_for_empty_prompt").and_then(Value::as_bool).unwrap_or(true))
    }

    /// The noise schedule and the model's own scheduler.
    ///
    /// # Errors
    /// When the config cannot be read.
    pub fn scheduler(&self) -> Result<SchedulerConfig> {
        match &self.layout {
            Layout::Folder(folder) => Ok(SchedulerConfig::from_file(folder.scheduler_config())?),
            Layout::SingleFile(file) => {
                of_map(file.scheduler()).with_context(|| format!("the scheduler of {}", self.path.display()))
            }
        }
    }

    /// The same as JSON, as `scheduler_config.json` has it.
    ///
    /// # Errors
    /// When the config cannot be read.
    pub fn scheduler_json(&self) -> Result<Map<String, Value>> {
        match &self.layout {
            Layout::Folder(folder) => weights::read_config(&folder.scheduler_config()),
            Layout::SingleFile(file) => Ok(file.scheduler().clone()),
        }
    }

    /// The widths of a token's embedding, from the configs alone: that of the text encoder, of SDXL those of both.
    ///
    /// # Errors
    /// When a config cannot be read.
    pub fn token_widths(&self) -> Result<Vec<i64>> {
        let encoders = [Component::TextEncoder, Component::TextEncoder2];
        let encoders = encoders.into_iter().filter(|encoder| self.components().contains(encoder));
        encoders.map(|encoder| Ok(self.config::<Width>(encoder)?.hidden_size)).collect()
    }

    /// Height and width in pixels of the images that the model was trained for, from its configs alone.
    ///
    /// # Errors
    /// When a config cannot be read.
    pub fn image_size(&self) -> Result<i64> {
        Ok(image_size(&self.config(Component::Unet)?, &self.config(Component::Vae)?))
    }

    /// All files that decide what the model computes, by their names within the model, such as `unet/config.json`. A single
    /// file is `checkpoint.safetensors`; what the options name beside it stands in `configs/` and `tokenizer/`.
    ///
    /// # Errors
    /// When a component has no weights that can be read.
    pub fn files(&self) -> Result<BTreeMap<String, PathBuf>> {
        let mut files = BTreeMap::new();
        let mut add = |name: String, file: PathBuf| files.insert(name, file);
        let (configs, tokenizer) = match &self.layout {
            Layout::Folder(folder) => {
                for &component in self.components() {
                    for file in self.archive(component)?.files() {
                        let name = file.file_name().unwrap_or_default().to_string_lossy();
                        add(format!("{}/{name}", component.folder()), file.to_owned());
                    }
                }
                let index = folder.is_sdxl().then(|| folder.index()).filter(|index| index.exists());
                index.map(|index| add("model_index.json".to_owned(), index));
                (Some((folder, "")), Some(folder.component("tokenizer")))
            }
            Layout::SingleFile(file) => {
                add("checkpoint.safetensors".to_owned(), self.path.clone());
                (file.config_folder().map(|folder| (folder, "configs/")), file.tokenizer_folder().map(Path::to_owned))
            }
        };
        if let Some((folder, prefix)) = &configs {
            for name in self.components().iter().map(|component| component.folder()) {
                add(format!("{prefix}{name}/config.json"), folder.component(name).join("config.json"));
            }
            add(format!("{prefix}scheduler/scheduler_config.json"), folder.scheduler_config());
        }
        let second = configs.map(|(folder, _)| (SECOND_TOKENIZER, folder.component(SECOND_TOKENIZER)));
        let second = second.filter(|_| self.is_sdxl());
        for (name, folder) in tokenizer.map(|folder| ("tokenizer", folder)).into_iter().chain(second) {
            for (file, path) in tokenizer::FILES.map(|file| (file, folder.join(file))) {
                if path.exists() {
                    add(format!("{name}/{file}"), path);
                }
            }
        }
        Ok(files)
    }
}

const SECOND_TOKENIZER: &str = "tokenizer_2";

/// What a text encoder's config says of its width.
#[derive(Deserialize)]
struct Width {
    hidden_size: i64,
}

fn of_map<C: DeserializeOwned>(map: &Map<String, Value>) -> Result<C> {
    Ok(serde_json::from_value(Value::Object(map.clone()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_matter_are_named_within_the_model() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-sd21");
        let files = BaseModel::open(&model, &ModelOptions::default()).unwrap().files().unwrap();
        let expected = [
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(files.keys().collect::<Vec<_>>(), expected);
        assert!(files.values().all(|file| file.is_file()));
        // SDXL's are the same, the second text encoder's and the index, which says what no negative prompt means.
        let sdxl = model.with_file_name("tiny-sdxl");
        let files = BaseModel::open(&sdxl, &ModelOptions::default()).unwrap().files().unwrap();
        let more = files.keys().filter(|name| !expected.contains(&name.as_str()));
        let second = ["text_encoder_2/config.json", "text_encoder_2/model.safetensors"];
        let tokenizer = ["merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"];
        let tokenizer = tokenizer.map(|name| format!("tokenizer_2/{name}"));
        let all = ["model_index.json"].into_iter().chain(second).map(str::to_owned).chain(tokenizer);
        assert_eq!(more.cloned().collect::<Vec<_>>(), all.collect::<Vec<_>>());
        assert!(expected.iter().all(|name| files.contains_key(*name)));
    }
}
