//! `probe`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use options::SchedulerKind;
use serde::{Deserialize, Serialize};

use crate::{Compute, SingleFile};

/// What each component takes and returns; a ? marks what is optional.
const TENSORS: &str = "\
Inputs -> outputs by component (a ? marks what is optional):

  unet          sample [b,4,h,w], timestep [b] or [], encoder_hidden_states [b,n,d], attention_tokens? [k];
                of SDXL also text_embeds [b,p] and time_ids [b,6]
                -> sample [b,4,h,w]; attention.LAYER [b,k,heads,pixels] for the token positions in attention_tokens
  vae-encoder   images [b,3,H,W] in [-1,1], noise? [b,4,H/8,W/8]
                -> mean, logvar; latents (sampled with the noise, scaled)
  vae-decoder   latents [b,4,h,w], unscaled -> images [b,3,8h,8w]
  text-encoder  input_ids [b,n] or inputs_embeds [b,n,d]
                -> last_hidden_state, penultimate_hidden_state (without final norm); pooler_output for ids
  text-encoder-2  SDXL's second: input_ids [b,n] -> the same hidden states, text_embeds [b,p]
  clip-image    pixel_values [b,3,S,S] or image (bytes [H,W,3]) -> image_embeds [b,d]
  clip-text     input_ids [b,n] -> text_embeds [b,d]
  tokenizer     any tensors of bytes, each the UTF-8 text of a prompt -> input_ids [b,77] in the order of the names
  tokenizer-2   the same by SDXL's second
  scheduler     sample [...] (initial noise times init_noise_sigma), model_outputs [calls,...], noise? [calls,...]
                -> timesteps [calls], samples [calls,...]";

/// Run one component of a model on tensors from a file, to compare it with any other implementation
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
#[command(after_help = TENSORS)]
pub struct Probe {
    /// Model: a name, a folder in the diffusers layout, a .safetensors checkpoint of Stable Diffusion 1.x, 2.x or XL, or the
    /// folder of the component itself
    #[arg(long)]
    pub model: PathBuf,
    /// Component to run
    #[arg(long, value_enum)]
    pub component: ProbedComponent,
    /// Safetensors file with the inputs
    #[arg(long, value_name = "FILE")]
    pub inputs: PathBuf,
    /// Safetensors file to write the outputs to: new, or of an earlier probe
    #[arg(long, value_name = "FILE")]
    pub outputs: PathBuf,
    /// Another config than the one in the component's folder
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Steps of the scheduler
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub steps: usize,
    /// Another scheduler than the model's own
    #[arg(long, value_enum)]
    pub scheduler: Option<SchedulerKind>,
    /// Where to compute.
    #[command(flatten)]
    #[serde(flatten)]
    pub compute: Compute,
    /// What a model in a single file does not say of itself.
    #[command(flatten)]
    #[serde(flatten)]
    pub single_file: SingleFile,
}

/// What can be run alone.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the help lists what each takes")]
pub enum ProbedComponent {
    Unet,
    VaeEncoder,
    VaeDecoder,
    TextEncoder,
    #[value(name = "text-encoder-2")]
    #[serde(rename = "text-encoder-2")]
    TextEncoder2,
    ClipImage,
    ClipText,
    Tokenizer,
    #[value(name = "tokenizer-2")]
    #[serde(rename = "tokenizer-2")]
    Tokenizer2,
    Scheduler,
}
