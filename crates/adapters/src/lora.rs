//! What a LoRA file holds, by the names of the model's parameters.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use model_files::names::Names;
use tch::{Kind, Tensor};
use weights::{Parameters, Tensors};

use crate::Adapters;
use crate::keys::{Network, Networks, original_names};
use crate::low_rank::LowRankAdapter;

/// Changes of a model's weights, layer by layer: what a LoRA file holds.
#[derive(Debug, Default)]
pub struct Lora {
    /// Of the U-Net's layers, by their names in diffusers, such as `mid_block.attentions.0.proj_in`.
    pub unet: BTreeMap<String, LayerChange>,
    /// Of the text encoder's, by their names in transformers, from `text_model` on.
    pub text_encoder: BTreeMap<String, LayerChange>,
    /// Of the layers of SDXL's second text encoder, likewise.
    pub text_encoder_2: BTreeMap<String, LayerChange>,
    /// The embeddings [vectors, width] of new tokens, by the tokens; SDXL's two beside each other.
    pub embeddings: Tensors,
    /// What files for SDXL need beside it; none for Stable Diffusion 1.x and 2.x.
    pub sdxl: Option<Sdxl>,
}

/// What files for SDXL need to know of the model.
#[derive(Debug)]
pub struct Sdxl {
    names: Names,
    /// The width of the first text encoder's embeddings.
    pub(crate) first_width: i64,
}

impl Sdxl {
    /// Given the names of all of its U-Net's parameters, and the width of the embeddings of its first text encoder.
    pub fn new<'a>(unet: impl Iterator<Item = &'a str>, first_width: i64) -> Self {
        Self { names: original_names(unet), first_width }
    }

    /// What kohya's keys call a layer.
    pub(crate) fn kohya(&self, layer: &str) -> Option<String> {
        self.names.to_ldm(layer)
    }
}

/// The change of one layer.
#[derive(Debug, Default)]
pub struct LayerChange {
    /// A change of the weight by a product of two small matrices.
    pub low_rank: Option<LowRank>,
    /// A further change of the weight, of its shape.
    pub weight: Option<Tensor>,
    /// The change of the bias.
    pub bias: Option<Tensor>,
}

/// alpha / r · up · down.
#[derive(Debug)]
pub struct LowRank {
    /// [r, in], or of a convolution [r, in, k, k].
    pub down: Tensor,
    /// [out, r], or of a convolution [out, r, 1, 1].
    pub up: Tensor,
    /// What the product is multiplied by, times r.
    pub alpha: f64,
}

/// A parameter by its full name; transformers 5 leaves out a text encoder's `text_model`.
pub(crate) fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a Tensor> {
    parameters.get(name).or_else(|| parameters.get(name.strip_prefix("text_model.")?))
}

impl LowRank {
    /// r.
    pub fn rank(&self) -> i64 {
        self.down.size()[0]
    }

    /// The change itself, [out, in · k · k], f32.
    pub fn product(&self) -> Tensor {
        let [up, down] = [&self.up, &self.down].map(|factor| factor.flatten(1, -1).to_kind(Kind::Float));
        (up * (self.alpha / self.rank() as f64)).matmul(&down)
    }
}

impl Lora {
    /// Gives these values to a U-Net's LoRA, to be trained on; of layers that are not among them it stays as it is.
    ///
    /// # Errors
    /// When the file changes something that is not adapted here, or has another rank. Then nothing has changed.
    pub fn load_into(&self, adapters: &Adapters) -> Result<()> {
        let own: BTreeMap<&str, &LowRankAdapter> =
            adapters.low_rank().map(|(site, adapter)| (site.name.as_str(), adapter)).collect();
        let mut copies = Vec::new();
        let text_encoder = self.text_encoder.keys().chain(self.text_encoder_2.keys()).next();
        ensure!(
            text_encoder.is_none(),
            "it changes the text encoder's {}, where this run has no adapter: use one of the U-Net alone",
            text_encoder.map_or("", String::as_str)
        );
        for (layer, change) in &self.unet {
            let (Some(adapter), Some(low_rank)) = (own.get(layer.as_str()), &change.low_rank) else {
                bail!(
                    "it changes {layer}, where this run has no LoRA: use one of the same targets (adapter.targets is attention \
                     or kohya)"
                );
            };
            ensure!(
                change.weight.is_none() && change.bias.is_none(),
                "it changes more of {layer} than by two matrices, which cannot be trained on"
            );
            let (rank, mine) = (low_rank.down.size()[0], adapter.down.size()[0]);
            ensure!(rank == mine, "its rank is {rank} in {layer}, and this run's {mine}: give --rank {rank}");
            // Where the scales differ, the product is the same.
            let factor = low_rank.alpha / rank as f64 / adapter.scale;
            copies.push((&adapter.down, low_rank.down.view_as(&adapter.down)));
            copies.push((&adapter.up, low_rank.up.view_as(&adapter.up).to_kind(Kind::Float) * factor));
        }
        let copy = || copies.iter().for_each(|(mine, theirs)| (*mine).shallow_clone().copy_(theirs));
        Ok(libtorch::catch(|| tch::no_grad(copy))?)
    }

    /// What adapters have learned, sharing their memory; nothing of those that are no LoRA.
    pub fn of(adapters: &Adapters) -> Self {
        let layers = adapters.low_rank().map(|(site, adapter)| {
            let rank = adapter.down.size()[0];
            let shaped = |factor: &Tensor| {
                let factor = factor.detach();
                if site.convolution { factor.unsqueeze(-1).unsqueeze(-1) } else { factor }
            };
            let (down, up) = (shaped(&adapter.down), shaped(&adapter.up));
            let low_rank = LowRank { down, up, alpha: adapter.scale * rank as f64 };
            (site.name.clone(), LayerChange { low_rank: Some(low_rank), ..LayerChange::default() })
        });
        Self { unet: layers.collect(), ..Self::default() }
    }

    /// The changes of a network's layers.
    pub(crate) fn layers(&self, network: Network) -> &BTreeMap<String, LayerChange> {
        match network {
            Network::Unet => &self.unet,
            Network::TextEncoder => &self.text_encoder,
            Network::TextEncoder2 => &self.text_encoder_2,
        }
    }

    /// Adds the changes, `scale` times, to the weights of the networks, which keep their dtypes. That
    /// takes as long as a few steps, and images are generated as fast as without.
    ///
    /// # Errors
    /// When a layer is not there or of another shape, then nothing has changed; or when LibTorch refuses.
    pub fn merge(&self, networks: Networks<'_>, scale: f64) -> Result<()> {
        let there = |network: Network| Some((self.layers(network), networks.get(network)?, network.noun()));
        let networks: Vec<_> = Network::ALL.into_iter().filter_map(there).collect();
        for &(layers, parameters, network) in &networks {
            for (name, change) in layers {
                change.parts(name).try_for_each(|(name, size)| {
                    let found = parameter(parameters, &name).map(Tensor::size);
                    let fits = found.as_ref().is_some_and(|found| found.iter().product::<i64>() == size);
                    ensure!(
                        fits,
                        "the change of {name} has {size} numbers, but the {network}'s has the shape {found:?}"
                    );
                    Ok(())
                })?;
            }
        }
        let merge = || {
            for (layers, parameters, _) in &networks {
                layers.iter().for_each(|(name, change)| change.add_to(name, parameters, scale));
            }
        };
        Ok(libtorch::catch(|| tch::no_grad(merge))?)
    }
}

impl LayerChange {
    /// The names of the parameters that change, and how many numbers they have.
    fn parts(&self, name: &str) -> impl Iterator<Item = (String, i64)> {
        let low_rank = self.low_rank.as_ref().map(|LowRank { down, up, .. }| {
            (format!("{name}.weight"), up.size()[0] * (down.numel() as i64 / down.size()[0].max(1)))
        });
        let full = [("weight", &self.weight), ("bias", &self.bias)]
            .map(|(part, change)| change.as_ref().map(|change| (format!("{name}.{part}"), change.numel() as i64)));
        low_rank.into_iter().chain(full.into_iter().flatten())
    }

    fn add_to(&self, name: &str, parameters: &Parameters, scale: f64) {
        let product = self.low_rank.as_ref().map(LowRank::product);
        let weight = self.weight.as_ref().map(Tensor::shallow_clone);
        let bias = self.bias.as_ref().map(Tensor::shallow_clone);
        for (part, change) in [("weight", product), ("weight", weight), ("bias", bias)] {
            if let (Some(parameter), Some(change)) = (parameter(parameters, &format!("{name}.{part}")), change) {
                let change = change.to_device(parameter.device()).to_kind(Kind::Float).view_as(parameter);
                // In f32: what is small beside a half-precision weight counts when several are added up.
                parameter.shallow_clone().copy_(&(parameter.to_kind(Kind::Float) + change * scale));
            }
        }
    }
}
