//! The base model of an export.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use model_files::{BaseModel, Component};
use serde::Deserialize;
use serde_json::Value;
use weights::{Archive, Source, Tensors, is_training_state};

use crate::family::Family;

/// A U-Net in place of the base model's own, such as a trained one: all of its parameters.
#[derive(Debug, Clone, Copy)]
pub enum Unet<'a> {
    /// A folder with `config.json` and weights, such as `unet/` of a run.
    Folder(&'a Path),
    /// Parameters under their diffusers names.
    Tensors(&'a Tensors),
}

/// What was trained in place of the base model's own components.
#[derive(Debug, Clone, Copy, Default)]
pub struct Replaced<'a> {
    /// The U-Net.
    pub unet: Option<Unet<'a>>,
    /// The text encoder's parameters, under the names of the model's file.
    pub text_encoder: Option<&'a Tensors>,
}

impl<'a> Replaced<'a> {
    /// A U-Net alone.
    pub fn unet(unet: Unet<'a>) -> Self {
        Self { unet: Some(unet), text_encoder: None }
    }

    fn has(&self, component: Component) -> bool {
        match component {
            Component::Unet => self.unet.is_some(),
            Component::TextEncoder => self.text_encoder.is_some(),
            Component::Vae | Component::TextEncoder2 => false,
        }
    }
}

/// A model, and what its configs say.
#[derive(Debug)]
pub(crate) struct Base<'a> {
    pub(crate) model: &'a BaseModel,
    pub(crate) family: Family,
    /// Whether the U-Net predicts velocity rather than noise.
    pub(crate) predicts_velocity: bool,
    /// The height and width in pixels of the images that the U-Net was trained for.
    pub(crate) resolution: i64,
}

/// The part of the U-Net's config that tells architectures apart.
#[derive(Deserialize)]
struct UnetConfig {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    addition_embed_type: Option<String>,
}

#[derive(Deserialize)]
struct TextConfig {
    hidden_act: Option<String>,
}

/// What the user should know of the files of `base` that an export takes over, with other components or not: which of them
/// are variants, in place of the plain weights.
pub fn notes(base: &BaseModel, replaced: &Replaced) -> Vec<String> {
    let taken = base.components().iter().filter(|component| !replaced.has(**component));
    // What cannot be read is an error of the export itself.
    taken.filter_map(|component| base.archive(*component).ok()).flat_map(|archive| archive.notes()).collect()
}

impl<'a> Base<'a> {
    /// Reads the configs.
    pub(crate) fn open(model: &'a BaseModel) -> Result<Self> {
        let unet: UnetConfig = model.config(Component::Unet)?;
        let text: TextConfig = model.config(Component::TextEncoder)?;
        let scheduler = model.scheduler_json()?;
        if unet.class_name.as_deref().is_some_and(|name| name != "UNet2DConditionModel")
            || unet.addition_embed_type.is_some() != model.is_sdxl()
        {
            bail!(
                "the model in {} is not of Stable Diffusion 1.x, 2.x or XL, which are all that can be exported",
                model.path().display()
            );
        }
        let family = match model.is_sdxl() {
            true => Family::Sdxl,
            false => Family::of_activation(text.hidden_act.as_deref(), model.path())?,
        };
        Ok(Self {
            model,
            family,
            predicts_velocity: scheduler.get("prediction_type").and_then(Value::as_str) == Some("v_prediction"),
            resolution: model.image_size()?,
        })
    }

    /// Checks that a U-Net has the same parameters as the base model's.
    pub(crate) fn check(&self, unet: &Unet) -> Result<()> {
        let of_model = |(name, _): &(&str, &[i64])| !is_training_state(name);
        let own = self.model.archive(Component::Unet)?;
        let other = match unet {
            Unet::Folder(folder) => {
                ensure!(
                    folder.join("config.json").exists(),
                    "{} is not a U-Net: it has no config.json",
                    folder.display()
                );
                Archive::open_folder(folder)?.shapes().filter(of_model).map(owned).collect()
            }
            Unet::Tensors(tensors) => tensors.iter().map(|(name, t)| (name.clone(), t.size())).collect::<Vec<_>>(),
        };
        let own: Vec<_> = own.shapes().filter(of_model).map(owned).collect();
        if let Some((name, shape)) = first_difference(&own, &other) {
            bail!(
                "the U-Net to export does not belong to the model in {}: {name} {shape}; give the model that it was \
                 trained from",
                self.model.path().display()
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
