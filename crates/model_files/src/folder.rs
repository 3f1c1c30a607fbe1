//! A model's folder in the Hugging Face diffusers layout.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Deserialize;

/// The size of latents where a config does not tell: 512 pixels, as Stable Diffusion 1.x and 2.x-base were trained.
pub const DEFAULT_SAMPLE_SIZE: i64 = 64;

/// What only SDXL has.
const SECOND: &str = "text_encoder_2";

/// A folder with one sub-folder per component, each with its config and weights.
#[derive(Debug, Clone)]
pub struct ModelFolder(PathBuf);

impl ModelFolder {
    /// Checks that the folder looks like a Stable Diffusion model: 1.x, 2.x or SDXL.
    ///
    /// # Errors
    /// Says what is missing, and what the folder seems to be instead.
    pub fn open(path: &Path) -> Result<Self> {
        const NEEDED: [&str; 4] =
            ["unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"];
        let shown = path.display();
        if !path.exists() {
            bail!("there is no model folder {shown}; `weights fetch sd2.1-base` downloads one");
        }
        if path.is_file() {
            bail!(
                "{shown} is a file, but --model wants a folder in the diffusers layout (unet/, vae/, text_encoder/, ...)"
            );
        }
        if path.join(SECOND).exists() && !path.join("text_encoder").exists() {
            bail!(
                "{shown} is SDXL's refiner (it has a {SECOND}, but no text_encoder), which refines images of SDXL's base model; \
                 give the folder of the base model"
            );
        }
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !path.join(name).exists()).collect();
        if path.join("config.json").exists() && missing.len() == NEEDED.len() {
            bail!(
                "{shown} is a single component; --model wants the folder above it, which holds unet/, vae/, text_encoder/, ..."
            );
        }
        if !missing.is_empty() {
            bail!("{shown} is not a complete model in the diffusers layout: it has no {}", missing.join(", no "));
        }
        if path.join(SECOND).exists() {
            const NEEDED: [&str; 2] = ["text_encoder_2/config.json", "tokenizer_2"];
            if let Some(missing) = NEEDED.into_iter().find(|name| !path.join(name).exists()) {
                bail!("{shown} is SDXL, since it has a {SECOND}, but not complete: it has no {missing}");
            }
        }
        Ok(Self(path.to_owned()))
    }

    /// Whether it is SDXL, which has two text encoders.
    pub fn is_sdxl(&self) -> bool {
        self.0.join(SECOND).exists()
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of one component, such as `unet`.
    pub fn component(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Height and width in pixels of the images that the model was trained for, from its configs alone.
    ///
    /// # Errors
    /// When a config cannot be read or used.
    pub fn image_size(&self) -> Result<i64> {
        let unet = weights::read_config(&self.component("unet").join("config.json"))?;
        let vae = weights::read_config(&self.component("vae").join("config.json"))?;
        Ok(image_size(&unet, &vae))
    }

    /// The index of its components, which not all folders have.
    pub fn index(&self) -> PathBuf {
        self.0.join("model_index.json")
    }

    /// The noise schedule's config.
    pub fn scheduler_config(&self) -> PathBuf {
        self.0.join("scheduler/scheduler_config.json")
    }
}

/// What the U-Net's config says of sizes.
#[derive(Deserialize)]
pub(crate) struct LatentSize {
    sample_size: Option<i64>,
}

/// What the VAE's config says of sizes.
#[derive(Deserialize)]
pub(crate) struct Halvings {
    #[serde(default)]
    block_out_channels: Vec<i64>,
}

/// Pixels of the images that a U-Net and a VAE were trained for.
pub(crate) fn image_size(unet: &LatentSize, vae: &Halvings) -> i64 {
    let halvings = vae.block_out_channels.len().saturating_sub(1) as u32;
    unet.sample_size.unwrap_or(DEFAULT_SAMPLE_SIZE).saturating_mul(2i64.saturating_pow(halvings))
}
