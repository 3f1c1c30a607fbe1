//! The model that the learned parts belong to: a folder in the diffusers layout.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use weights::{Archive, Source, Tensors, is_training_state, read_config};

use crate::Family;

/// A U-Net in place of the base model's own, such as a trained one: all of its parameters.
#[derive(Debug, Clone, Copy)]
pub enum Unet<'a> {
    /// A folder with `config.json` and weights, such as `unet/` of a run.
    Folder(&'a Path),
    /// Parameters under their diffusers names.
    Tensors(&'a Tensors),
}

/// What the configs say of a model.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) folder: PathBuf,
    pub(crate) family: Family,
    /// Whether the U-Net predicts velocity rather than noise.
    pub(crate) predicts_velocity: bool,
    /// The pictures' height and width in pixels that the U-Net was trained for.
    pub(crate) resolution: u64,
}

/// The part of the U-Net's config that tells architectures apart.
#[derive(Deserialize)]
struct UnetConfig {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    addition_embed_type: Option<String>,
    sample_size: Option<u64>,
}

#[derive(Deserialize)]
struct VaeConfig {
    #[serde(default)]
    block_out_channels: Vec<u64>,
}

#[derive(Deserialize)]
struct TextConfig {
    hidden_act: Option<String>,
}

#[derive(Deserialize)]
struct SchedulerConfig {
    prediction_type: Option<String>,
}

/// What a scheduler_config.json is.
pub(crate) const SCHEDULER: &str = "the configuration of a scheduler";

/// The size of latents where a config does not tell: 512 pixels, as 1.x and 2.x-base were trained.
const DEFAULT_SAMPLE_SIZE: u64 = 64;

/// What the user should know of the files in `base` that an export takes over, with another U-Net or not: which of them are
/// variants, in place of the plain weights.
pub fn notes(base: &Path, unet: Option<Unet>) -> Vec<String> {
    let own_unet = unet.is_none().then_some("unet");
    let components = own_unet.into_iter().chain(["vae", "text_encoder"]);
    // What cannot be read is an error of the export itself.
    components
        .filter_map(|component| Archive::open_folder(&base.join(component)).ok())
        .flat_map(|a| a.notes())
        .collect()
}

impl Base {
    /// Reads the configs.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        const NEEDED: [&str; 4] =
            ["unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"];
        let shown = folder.display();
        ensure!(
            folder.is_dir(),
            "there is no model folder {shown}; give one in the diffusers layout (unet/, vae/, ...)"
        );
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !folder.join(name).exists()).collect();
        ensure!(
            missing.is_empty(),
            "{shown} is not a complete model in the diffusers layout: it has no {}",
            missing.join(", no ")
        );

        let [unet, vae, text, scheduler] = NEEDED.map(|name| folder.join(name));
        let unet: UnetConfig = read_config(&unet)?;
        let vae: VaeConfig = read_config(&vae)?;
        let text: TextConfig = read_config(&text)?;
        let scheduler: SchedulerConfig = json::read(&scheduler, SCHEDULER)?;
        if unet.class_name.as_deref().is_some_and(|name| name != "UNet2DConditionModel")
            || unet.addition_embed_type.is_some()
            || folder.join("text_encoder_2").exists()
        {
            bail!("the model in {shown} is not of Stable Diffusion 1.x or 2.x, which are all that can be exported");
        }
        let halvings = vae.block_out_channels.len().saturating_sub(1);
        Ok(Self {
            folder: folder.to_owned(),
            family: Family::of_activation(text.hidden_act.as_deref(), folder)?,
            predicts_velocity: scheduler.prediction_type.as_deref() == Some("v_prediction"),
            resolution: unet
                .sample_size
                .unwrap_or(DEFAULT_SAMPLE_SIZE)
                .saturating_mul(2u64.saturating_pow(halvings as u32)),
        })
    }

    /// Makes sure that a U-Net has the same parameters as the base model's.
    pub(crate) fn check(&self, unet: &Unet) -> Result<()> {
        let of_model = |(name, _): &(&str, &[i64])| !is_training_state(name);
        let own = Archive::open_folder(&self.folder.join("unet"))?;
        let other = match unet {
            Unet::Folder(folder) => {
                ensure!(folder.join("config.json").exists(), "{} is no U-Net: it has no config.json", folder.display());
                Archive::open_folder(folder)?.shapes().filter(of_model).map(owned).collect()
            }
            Unet::Tensors(tensors) => tensors.iter().map(|(name, t)| (name.clone(), t.size())).collect::<Vec<_>>(),
        };
        let own: Vec<_> = own.shapes().filter(of_model).map(owned).collect();
        if let Some((name, shape)) = first_difference(&own, &other) {
            bail!(
                "the U-Net to export does not belong to the model in {}: {name} {shape}; give the model that it was \
                 trained from",
                self.folder.display()
            );
        }
        Ok(())
    }
}

fn owned((name, shape): (&str, &[i64])) -> (String, Vec<i64>) {
    (name.to_owned(), shape.to_owned())
}

/// The first tensor that is not the same in two lists in order of names, and what is wrong with it.
fn first_difference<'a>(own: &'a [(String, Vec<i64>)], other: &'a [(String, Vec<i64>)]) -> Option<(&'a str, String)> {
    for (name, shape) in own {
        match other.binary_search_by(|(other, _)| other.cmp(name)) {
            Ok(at) if other[at].1 == *shape => {}
            Ok(at) => return Some((name, format!("has shape {:?} instead of {shape:?}", other[at].1))),
            Err(_) => return Some((name, "is missing".to_owned())),
        }
    }
    let extra = other.iter().find(|(name, _)| own.binary_search_by(|(own, _)| own.cmp(name)).is_err());
    extra.map(|(name, _)| (name.as_str(), "is not part of it".to_owned()))
}
