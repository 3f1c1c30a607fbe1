//! The names that diffusers and the original code (LDM, "latent diffusion models") give the same modules.

pub mod open_clip;
pub mod unet;
pub mod vae;

use std::collections::BTreeMap;

/// A one-to-one table of module paths such as `conv_norm_out` and `out.0`, applied to parameters' names.
#[derive(Debug, Default)]
pub struct Names {
    to_ldm: BTreeMap<String, String>,
    to_diffusers: BTreeMap<String, String>,
}

impl Names {
    /// One module, or one parameter.
    pub fn add(&mut self, diffusers: impl Into<String>, ldm: impl Into<String>) {
        let (diffusers, ldm) = (diffusers.into(), ldm.into());
        self.to_ldm.insert(diffusers.clone(), ldm.clone());
        self.to_diffusers.insert(ldm, diffusers);
    }

    /// Modules below one place in both trees.
    pub fn add_all(&mut self, diffusers: &str, ldm: &str, modules: &[(&str, &str)]) {
        for (a, b) in modules {
            self.add(format!("{diffusers}.{a}"), format!("{ldm}.{b}"));
        }
    }

    /// LDM's name of a parameter, if it has one.
    #[must_use]
    pub fn to_ldm(&self, name: &str) -> Option<String> {
        rename(&self.to_ldm, name)
    }

    /// diffusers' name of a parameter, if it has one.
    #[must_use]
    pub fn to_diffusers(&self, name: &str) -> Option<String> {
        rename(&self.to_diffusers, name)
    }
}

/// What the U-Net's names begin with in a single file.
pub const UNET: &str = "model.diffusion_model.";
/// What the VAE's names begin with in a single file.
pub const VAE: &str = "first_stage_model.";
/// What diffusers' names of the text encoder begin with; transformers 5 leaves it out of files.
pub const TEXT: &str = "text_model.";
/// What the text encoder's names begin with in a single file of Stable Diffusion 1.x, before their diffusers names.
pub const CLIP: &str = "cond_stage_model.transformer.";
/// What OpenCLIP's names of the text encoder begin with in a single file of Stable Diffusion 2.x.
pub const OPEN_CLIP: &str = "cond_stage_model.model.";
/// What the first text encoder's names begin with in a single file of SDXL, before their diffusers names.
pub const SDXL_CLIP: &str = "conditioner.embedders.0.transformer.";
/// What OpenCLIP's names of the second text encoder begin with in a single file of SDXL.
pub const SDXL_OPEN_CLIP: &str = "conditioner.embedders.1.model.";

/// Replaces the longest path in the table that `name` starts with.
fn rename(table: &BTreeMap<String, String>, name: &str) -> Option<String> {
    if let Some(whole) = table.get(name) {
        return Some(whole.clone());
    }
    let dots = name.rmatch_indices('.').map(|(at, _)| at);
    dots.filter_map(|at| Some(format!("{}{}", table.get(&name[..at])?, &name[at..]))).next()
}

/// The number after `prefix` in a name, such as 2 in `down_blocks.2.resnets.0.conv1.weight`.
pub fn number_after(name: &str, prefix: &str) -> Option<usize> {
    name.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}

/// One more than the largest number after `prefix` in any name: how many modules a list has.
pub fn count_after(names: impl IntoIterator<Item = impl AsRef<str>>, prefix: &str) -> usize {
    names.into_iter().filter_map(|name| number_after(name.as_ref(), prefix)).max().map_or(0, |last| last + 1)
}
