//! The three parts of the model.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// A part of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Images to latents and back.
    Vae,
    /// Images and captions in one space.
    Clip,
    /// Noise out of latents, given a caption.
    Unet,
}

impl Part {
    /// In the order of training.
    pub const ALL: [Self; 3] = [Self::Vae, Self::Clip, Self::Unet];

    /// Its name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vae => "vae",
            Self::Clip => "clip",
            Self::Unet => "unet",
        }
    }

    /// Where a model folder has its weights.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Vae => "vae/diffusion_pytorch_model.safetensors",
            Self::Clip => "clip/model.safetensors",
            Self::Unet => "unet/diffusion_pytorch_model.safetensors",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|part| part.name() == name) {
            Some(part) => Ok(part),
            None => bail!("there is no part {:?}; the parts are vae, clip and unet", terminal::shortened(name)),
        }
    }
}
