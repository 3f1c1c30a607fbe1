//! A component's files, and its model from them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use model_files::BaseModel;
use requests::ProbedComponent as Component;
use scheduler::SchedulerConfig;
use serde::de::DeserializeOwned;
use tch::{Device, Kind};
use tokenizer::Tokenizer;
use weights::{Archive, Scope};

use crate::context::Context;

/// A component's files, and where it is to be computed.
pub(super) struct Place<'a> {
    context: &'a Context<'a>,
    pub(super) folder: PathBuf,
    config: PathBuf,
    pub(super) to: (Kind, Device),
    /// The model in a single file, in place of the folder, and which part of it.
    model: Option<(BaseModel, Option<model_files::Component>)>,
}

impl<'a> Place<'a> {
    pub(super) fn new(
        component: Component,
        model: &Path,
        config: Option<&Path>,
        to: (Kind, Device),
        context: &'a Context<'a>,
    ) -> Result<Self> {
        let inner = model.join(folder(component));
        let folder = if inner.is_dir() { inner } else { model.to_owned() };
        let name = if component == Component::Scheduler { "scheduler_config.json" } else { "config.json" };
        let config = config.map_or_else(|| folder.join(name), Path::to_owned);
        anyhow::ensure!(folder.is_dir(), "there is no folder {}", folder.display());
        Ok(Self { context, folder, config, to, model: None })
    }

    /// A part of a model in a single file.
    pub(super) fn of_model(
        model: BaseModel,
        component: Component,
        config: Option<&Path>,
        to: (Kind, Device),
        context: &'a Context<'a>,
    ) -> Result<Self> {
        let part = match component {
            Component::Unet => Some(model_files::Component::Unet),
            Component::VaeEncoder | Component::VaeDecoder => Some(model_files::Component::Vae),
            Component::TextEncoder => Some(model_files::Component::TextEncoder),
            Component::TextEncoder2 => {
                anyhow::ensure!(
                    model.is_sdxl(),
                    "{} is no SDXL, so it has no second text encoder",
                    model.path().display()
                );
                Some(model_files::Component::TextEncoder2)
            }
            Component::Tokenizer | Component::Tokenizer2 | Component::Scheduler => None,
            Component::ClipImage | Component::ClipText => bail!(
                "{} is a checkpoint of Stable Diffusion, which has no whole CLIP; name the folder of one",
                model.path().display()
            ),
        };
        let (folder, config) = (model.path().to_owned(), config.map(Path::to_owned).unwrap_or_default());
        Ok(Self { context, folder, config, to, model: Some((model, part)) })
    }

    /// Builds the component from its config, whichever file that is, and its weights.
    pub(super) fn build<C: DeserializeOwned, M>(&self, new: impl FnOnce(&Scope, &C) -> Result<M>) -> Result<M> {
        if let Some((model, Some(part))) = &self.model {
            let config: C = match self.given_config() {
                Some(path) => weights::read_config(path)?,
                None => model.config(*part)?,
            };
            return Ok(model.build(*part, self.to, |vs| new(vs, &config))?.0);
        }
        let config: C = weights::read_config(&self.config)?;
        let source = Archive::open_folder(&self.folder)?;
        let (model, parameters) =
            weights::build(&source, self.to, |vs| new(vs, &config).with_context(|| self.config.display().to_string()))?;
        self.context.notes(parameters.notes());
        Ok(model)
    }

    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.model {
            Some((model, _)) => model.tokenizer(),
            None => Ok(Tokenizer::load(&self.folder)?),
        }
    }

    pub(super) fn second_tokenizer(&self) -> Result<Tokenizer> {
        match &self.model {
            Some((model, _)) => model.second_tokenizer(),
            None => Ok(Tokenizer::load(&self.folder)?),
        }
    }

    pub(super) fn scheduler(&self) -> Result<SchedulerConfig> {
        match (&self.model, self.given_config()) {
            (Some((model, _)), None) => model.scheduler(),
            _ => Ok(SchedulerConfig::from_file(&self.config)?),
        }
    }

    /// The config, unless it is the single file's own.
    fn given_config(&self) -> Option<&Path> {
        (!self.config.as_os_str().is_empty()).then_some(&self.config)
    }
}

/// A component's folder in a model.
fn folder(component: Component) -> &'static str {
    match component {
        Component::Unet => "unet",
        Component::VaeEncoder | Component::VaeDecoder => "vae",
        Component::TextEncoder => "text_encoder",
        Component::TextEncoder2 => "text_encoder_2",
        Component::Tokenizer => "tokenizer",
        Component::Tokenizer2 => "tokenizer_2",
        Component::Scheduler => "scheduler",
        Component::ClipImage | Component::ClipText => ".",
    }
}
