//! A model's folder in the Hugging Face diffusers layout.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The size of latents where a config does not tell: 512 pixels, as Stable Diffusion 1.x and 2.x-base were trained.
pub(crate) const DEFAULT_SAMPLE_SIZE: i64 = 64;

/// A folder with one sub-folder per component, each with its config and weights.
#[derive(Debug, Clone)]
pub struct ModelFolder(PathBuf);

impl ModelFolder {
    /// Checks that the folder looks like a Stable Diffusion model.
    ///
    /// # Errors
    /// Says what is missing, and what the folder seems to be instead.
    pub fn open(path: &Path) -> Result<Self> {
        const NEEDED: [&str; 4] =
            ["unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"];
        let shown = path.display();
        if !path.exists() {
            bail!("there is no model folder {shown}; `cargo xtask weights fetch sd2.1-base` downloads one");
        }
        if path.is_file() {
            bail!(
                "{shown} is a file, but --model wants a folder in the diffusers layout (unet/, vae/, text_encoder/, ...)"
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
        Ok(Self(path.to_owned()))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of one component, such as `unet`.
    pub fn component(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Height and width in pixels of the pictures that the model was trained for, from its configs alone.
    ///
    /// # Errors
    /// When a config cannot be read or used.
    pub fn image_size(&self) -> Result<i64> {
        let unet: unet::Config = weights::read_config(&self.component("unet").join("config.json"))?;
        let vae: vae::Config = weights::read_config(&self.component("vae").join("config.json"))?;
        for (name, valid) in [("unet", unet.validate()), ("vae", vae.validate())] {
            valid.with_context(|| self.component(name).join("config.json").display().to_string())?;
        }
        Ok(unet.sample_size.unwrap_or(DEFAULT_SAMPLE_SIZE) * vae.downscale_factor())
    }

    /// The noise schedule's config.
    pub fn scheduler_config(&self) -> PathBuf {
        self.0.join("scheduler/scheduler_config.json")
    }
}
