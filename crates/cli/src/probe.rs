//! `probe`: one component on tensors from a file.

mod components;
mod tensors;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use model_files::BaseModel;
use scheduler::{SchedulerConfig, SchedulerKind};
use serde::de::DeserializeOwned;
use tch::{Device, Kind};
use tokenizer::Tokenizer;
use weights::{Archive, Scope};

use crate::device::ComputeArgs;
use crate::model::ModelArgs;
use tensors::Inputs;

/// What each component takes and gives; a ? marks what may be left out.
const TENSORS: &str = "\
Inputs -> outputs by component (a ? marks what may be left out):

  unet          sample [b,4,h,w], timestep [b] or [], encoder_hidden_states [b,n,d], attention_tokens? [k]
                -> sample [b,4,h,w]; attention.LAYER [b,k,heads,pixels] for the token positions in attention_tokens
  vae-encoder   images [b,3,H,W] in [-1,1], noise? [b,4,H/8,W/8]
                -> mean, logvar; latents (sampled with the noise, scaled)
  vae-decoder   latents [b,4,h,w], unscaled -> images [b,3,8h,8w]
  text-encoder  input_ids [b,n] or inputs_embeds [b,n,d] -> last_hidden_state; pooler_output for ids
  clip-image    pixel_values [b,3,S,S] or image (bytes [H,W,3]) -> image_embeds [b,d]
  clip-text     input_ids [b,n] -> text_embeds [b,d]
  tokenizer     any tensors of bytes, each the UTF-8 text of a prompt -> input_ids [b,77] in the order of the names
  scheduler     sample [...] (initial noise times init_noise_sigma), model_outputs [calls,...], noise? [calls,...]
                -> timesteps [calls], samples [calls,...]";

/// Run one component on tensors from a file, to compare it with any other implementation.
#[derive(Args, Debug)]
#[command(after_help = TENSORS)]
pub(crate) struct Probe {
    /// A model, a folder in the diffusers layout or a .safetensors checkpoint of Stable Diffusion 1.x or 2.x; or the
    /// folder of the component itself
    #[arg(long)]
    model: PathBuf,
    #[command(flatten)]
    model_args: ModelArgs,
    /// The component
    #[arg(long, value_enum)]
    component: Component,
    /// A safetensors file with the inputs
    #[arg(long)]
    inputs: PathBuf,
    /// The safetensors file to write the outputs to; new, or that of an earlier probe
    #[arg(long)]
    outputs: PathBuf,
    /// Another config than the one in the component's folder
    #[arg(long)]
    config: Option<PathBuf>,
    /// Steps of the scheduler
    #[arg(long, default_value_t = 50)]
    steps: usize,
    /// Another scheduler than the model's own
    #[arg(long)]
    scheduler: Option<String>,
    #[command(flatten)]
    compute: ComputeArgs,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Component {
    Unet,
    VaeEncoder,
    VaeDecoder,
    TextEncoder,
    ClipImage,
    ClipText,
    Tokenizer,
    Scheduler,
}

impl Component {
    /// Its folder in a model.
    fn folder(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::VaeEncoder | Self::VaeDecoder => "vae",
            Self::TextEncoder => "text_encoder",
            Self::Tokenizer => "tokenizer",
            Self::Scheduler => "scheduler",
            Self::ClipImage | Self::ClipText => ".",
        }
    }
}

impl Probe {
    pub(crate) fn run(self) -> Result<()> {
        let scheduler = self.scheduler.as_deref().map(str::parse::<SchedulerKind>).transpose()?;
        atomic::ensure_ours(&self.outputs, "the outputs of a probe", is_own)?;
        let to = self.compute.resolve()?;
        let inputs = Inputs::read(&self.inputs)?;
        let place = if self.model.is_file() || self.model_args.is_given() {
            Place::of_model(self.model_args.open(&self.model)?, self.component, self.config.as_deref(), to)?
        } else {
            Place::new(self.component, &self.model, self.config.as_deref(), to)?
        };
        let outputs = libtorch::catch(|| {
            tch::no_grad(|| match self.component {
                Component::Unet => components::unet(&place, &inputs),
                Component::VaeEncoder => components::vae_encoder(&place, &inputs),
                Component::VaeDecoder => components::vae_decoder(&place, &inputs),
                Component::TextEncoder => components::text_encoder(&place, &inputs),
                Component::ClipImage => components::clip_image(&place, &inputs),
                Component::ClipText => components::clip_text(&place, &inputs),
                Component::Tokenizer => components::tokenizer(&place, &inputs),
                Component::Scheduler => components::scheduler(&place, &inputs, scheduler, self.steps),
            })
        })??;
        weights::save_with_metadata(&self.outputs, &outputs, &[MARK])?;
        for (name, tensor) in &outputs {
            terminal::say!("{name} {:?} {:?}", tensor.kind(), tensor.size());
        }
        Ok(())
    }
}

/// What the outputs' metadata say of them.
const MARK: (&str, &str) = ("software", "attndreambooth probe");

fn is_own(outputs: &Path) -> bool {
    Archive::open(outputs).is_ok_and(|file| file.metadata().get(MARK.0).is_some_and(|software| software == MARK.1))
}

/// A component's files, and where it is to be computed.
struct Place {
    folder: PathBuf,
    config: PathBuf,
    to: (Kind, Device),
    /// The model in a single file, in place of the folder, and which part of it.
    model: Option<(BaseModel, Option<model_files::Component>)>,
}

impl Place {
    fn new(component: Component, model: &Path, config: Option<&Path>, to: (Kind, Device)) -> Result<Self> {
        let inner = model.join(component.folder());
        let folder = if inner.is_dir() { inner } else { model.to_owned() };
        let name = if component == Component::Scheduler { "scheduler_config.json" } else { "config.json" };
        let config = config.map_or_else(|| folder.join(name), Path::to_owned);
        anyhow::ensure!(folder.is_dir(), "there is no folder {}", folder.display());
        Ok(Self { folder, config, to, model: None })
    }

    /// A part of a model in a single file.
    fn of_model(model: BaseModel, component: Component, config: Option<&Path>, to: (Kind, Device)) -> Result<Self> {
        let part = match component {
            Component::Unet => Some(model_files::Component::Unet),
            Component::VaeEncoder | Component::VaeDecoder => Some(model_files::Component::Vae),
            Component::TextEncoder => Some(model_files::Component::TextEncoder),
            Component::Tokenizer | Component::Scheduler => None,
            Component::ClipImage | Component::ClipText => bail!(
                "{} is a checkpoint of Stable Diffusion, which has no whole CLIP; name the folder of one",
                model.path().display()
            ),
        };
        let (folder, config) = (model.path().to_owned(), config.map(Path::to_owned).unwrap_or_default());
        Ok(Self { folder, config, to, model: Some((model, part)) })
    }

    /// Builds the component from its config, whichever file that is, and its weights.
    fn build<C: DeserializeOwned, M>(&self, new: impl FnOnce(&Scope, &C) -> Result<M>) -> Result<M> {
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
        parameters.notes().iter().for_each(|note| terminal::note!("{note}"));
        Ok(model)
    }

    fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.model {
            Some((model, _)) => model.tokenizer(),
            None => Ok(Tokenizer::load(&self.folder)?),
        }
    }

    fn scheduler(&self) -> Result<SchedulerConfig> {
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
