//! A model's folder in the Hugging Face diffusers layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use weights::Archive;

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

    /// All files that decide what the model computes, by their names within the model, such as `unet/config.json`.
    ///
    /// # Errors
    /// When a component has no weights that can be read.
    pub fn files(&self) -> Result<BTreeMap<String, PathBuf>> {
        let mut files = vec![self.scheduler_config()];
        for component in ["text_encoder", "unet", "vae"].map(|name| self.component(name)) {
            files.extend(Archive::open_folder(&component)?.paths().map(Path::to_owned));
            files.push(component.join("config.json"));
        }
        let tokenizer = tokenizer::FILES.map(|file| self.component("tokenizer").join(file));
        files.extend(tokenizer.into_iter().filter(|file| file.exists()));
        let name = |file: &Path| file.strip_prefix(&self.0).unwrap_or(file).display().to_string();
        Ok(files.into_iter().map(|file| (name(&file), file)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_matter_are_named_within_the_model() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-sd21");
        let files = ModelFolder::open(&model).unwrap().files().unwrap();
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
    }
}
