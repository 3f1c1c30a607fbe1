//! A model's networks, and the layout in which the original code keeps them in one file.

use anyhow::{Context, Result, ensure};
use model_files::names::{Names, SDXL_OPEN_CLIP, TEXT, UNET, VAE, unet, vae};
use model_files::{BaseModel, Component};
use tch::{Kind, Tensor};
use weights::{Archive, Tensors, is_training_state};

use crate::base::{Base, Replaced, Unet};
use crate::family::Family;
use crate::names::renamed;
use crate::open_clip::{self, PROJECTION};

/// The embeddings of all tokens.
const TOKEN_TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// The parameters of a Stable Diffusion model under their diffusers names.
#[derive(Debug)]
pub struct Components {
    /// The family.
    pub family: Family,
    /// The denoising network.
    pub unet: Tensors,
    /// The autoencoder, with the present names of its attention (`to_q`, not `query`).
    pub vae: Tensors,
    /// The text encoder, with names below `text_model.` and without its constant `position_ids`.
    pub text_encoder: Tensors,
    /// SDXL's second one, with its `text_projection.weight`.
    pub text_encoder_2: Option<Tensors>,
}

/// Handles to the same tensors.
pub(crate) fn copied(tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

impl Components {
    /// Reads a model, with other components in place of its own where they are given.
    ///
    /// # Errors
    /// When a component is missing or unreadable, the model is of another family, or the U-Net does not belong to it.
    pub fn of_model(model: &BaseModel, replaced: &Replaced) -> Result<Self> {
        Self::of(&Base::open(model)?, replaced)
    }

    pub(crate) fn of(base: &Base, Replaced { unet, text_encoder: trained }: &Replaced) -> Result<Self> {
        let of_model = |mut tensors: Tensors| {
            tensors.retain(|name, _| !is_training_state(name));
            tensors
        };
        let read = |component: Component| anyhow::Ok(of_model(base.model.archive(component)?.tensors()?));
        if let Some(unet) = unet {
            base.check(unet)?;
        }
        Ok(Self {
            family: base.family,
            unet: match unet {
                None => read(Component::Unet)?,
                Some(Unet::Folder(folder)) => of_model(Archive::open_folder(folder)?.tensors()?),
                Some(Unet::Tensors(tensors)) => copied(tensors),
            },
            vae: {
                let mut vae = read(Component::Vae)?;
                // The loss that it was trained with.
                vae.retain(|name, _| !name.starts_with("loss."));
                map_names(vae, vae::present_name)
            },
            text_encoder: text_encoder(match trained {
                None => read(Component::TextEncoder)?,
                Some(tensors) => of_model(copied(tensors)),
            }),
            text_encoder_2: match base.family {
                Family::Sdxl => Some(with_projection(read(Component::TextEncoder2)?)),
                Family::V1 | Family::V2 => None,
            },
        })
    }

    /// The same without the padding of the text encoder's table: its rows from `tokens` on.
    pub(crate) fn without_padding(mut self, tokens: Option<i64>) -> Self {
        let encoders = [Some(&mut self.text_encoder), self.text_encoder_2.as_mut()];
        for table in encoders.into_iter().flatten().filter_map(|encoder| encoder.get_mut(TOKEN_TABLE)) {
            if let Some(tokens) = tokens.filter(|tokens| table.dim() == 2 && table.size()[0] > *tokens) {
                *table = table.narrow(0, 0, tokens);
            }
        }
        self
    }

    /// The same parameters under the names and in the shapes of the original code, converted to `kind`.
    ///
    /// # Errors
    /// Names a parameter that the original code has no place for, or whose values `kind` cannot hold.
    pub fn into_ldm(self, kind: Kind) -> Result<Tensors> {
        let unet = renamed(self.unet, "the U-Net", unet::of_diffusers, Names::to_ldm)?;
        let mut vae = renamed(self.vae, "the VAE", vae::of_diffusers, Names::to_ldm)?;
        for tensor in vae.iter_mut().filter(|(name, t)| vae::is_convolution(name) && t.dim() == 2).map(|(_, t)| t) {
            *tensor = tensor.unsqueeze(-1).unsqueeze(-1);
        }
        let text_encoder = match self.family {
            Family::V1 | Family::Sdxl => self.text_encoder,
            Family::V2 => open_clip::from_diffusers(self.text_encoder)?,
        };
        let second = self.text_encoder_2.map(open_clip::from_diffusers_whole).transpose()?;
        let networks = [(UNET, unet), (VAE, vae), (self.family.text_prefix(), text_encoder)];
        let networks = networks.into_iter().chain(second.map(|second| (SDXL_OPEN_CLIP, second)));
        let all = networks.flat_map(|(prefix, network)| network.into_iter().map(move |t| (prefix, t)));
        all.map(|(prefix, (name, tensor))| {
            let name = format!("{prefix}{name}");
            let tensor = converted(&tensor, kind).with_context(|| format!("cannot convert {name}"))?;
            Ok((name, tensor))
        })
        .collect()
    }

    /// The way back: the networks among a single file's tensors. Others, such as those of an EMA, are ignored.
    ///
    /// # Errors
    /// When a network is missing, or has a parameter that diffusers has no place for.
    pub fn from_ldm(tensors: &Tensors) -> Result<Self> {
        let below = |prefix: &str| -> Result<Tensors> {
            let network = tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?, t)));
            let network: Tensors = network.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
            ensure!(
                !network.is_empty(),
                "there is no tensor {prefix}*, so this is not a whole checkpoint of Stable Diffusion 1.x, 2.x or XL"
            );
            Ok(network)
        };
        let is_of = |family: &Family| tensors.keys().any(|name| name.starts_with(family.text_prefix()));
        let family = [Family::V2, Family::Sdxl].into_iter().find(is_of).unwrap_or(Family::V1);
        let (unet, mut vae, text) = (below(UNET)?, below(VAE)?, below(family.text_prefix())?);
        for tensor in vae.iter_mut().filter(|(name, t)| vae::is_convolution(name) && t.dim() == 4).map(|(_, t)| t) {
            *tensor = tensor.squeeze_dim(-1).squeeze_dim(-1);
        }

        Ok(Self {
            family,
            unet: renamed(unet, "the U-Net", unet::of_ldm, Names::to_diffusers)?,
            vae: renamed(vae, "the VAE", vae::of_ldm, Names::to_diffusers)?,
            text_encoder: match family {
                Family::V1 | Family::Sdxl => text_encoder(text),
                Family::V2 => open_clip::to_diffusers(text)?,
            },
            text_encoder_2: match family {
                Family::V1 | Family::V2 => None,
                Family::Sdxl => Some(open_clip::to_diffusers_whole(below(SDXL_OPEN_CLIP)?)?),
            },
        })
    }
}

fn map_names(tensors: Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect()
}

/// The text encoder's parameters as [`Components::text_encoder`] promises them.
fn text_encoder(tensors: Tensors) -> Tensors {
    let full = |name: &str| if name.starts_with(TEXT) { name.to_owned() } else { format!("{TEXT}{name}") };
    // A file may hold the whole CLIP.
    let unused = ["text_projection", "logit_scale", "vision_model", "visual_projection", "embeddings.position_ids"];
    let mut tensors = map_names(tensors, full);
    tensors.retain(|name, _| {
        let below = |unused: &&str| name[TEXT.len()..].strip_prefix(*unused);
        !unused.iter().filter_map(below).any(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    tensors
}

/// The same of SDXL's second one.
fn with_projection(mut tensors: Tensors) -> Tensors {
    let projection = tensors.remove_entry(PROJECTION);
    text_encoder(tensors).into_iter().chain(projection).collect()
}

/// The tensor in another dtype, if that can hold its values.
fn converted(tensor: &Tensor, kind: Kind) -> Result<Tensor> {
    let converted = libtorch::catch(|| tensor.detach().to_kind(kind))?;
    let overflow = kind == Kind::Half && !bool::try_from(converted.isfinite().all())?;
    ensure!(!overflow, "its values do not fit into f16, which ends at 65504; choose bf16 or f32");
    Ok(converted)
}
