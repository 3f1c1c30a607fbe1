//! Adapters in a U-Net, and their parameters.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use layers::LinearAdapter;
use options::{Adapter, LoraTargets};
use tch::{Kind, Tensor};
use unet::{LinearSite, UNet};
use weights::{Init, Random, Source, Tensors};

use crate::low_rank::LowRankAdapter;
use crate::rotation::{RotationAdapter, upper_triangle};

/// The adapters of a U-Net, with handles to their parameters: f32 leaves on the U-Net's device, which gradients flow
/// into.
#[derive(Debug)]
pub struct Adapters {
    config: Adapter,
    layers: Vec<(LinearSite, Learned)>,
}

/// The adapter of one layer.
#[derive(Debug)]
enum Learned {
    LowRank(LowRankAdapter),
    Rotation(RotationAdapter),
}

impl Adapters {
    /// Gives a U-Net the adapters of `config`, which change nothing at first.
    ///
    /// LoRA's A begins uniform in ±1/√in, as kohya's scripts and peft have it, from the seed and the layer's name
    /// alone; its B and OFT's S begin as zeros. What else is to be trained is the caller's: the U-Net's own weights are
    /// as they were.
    ///
    /// # Errors
    /// When a value is out of range, the rank is larger than a layer, a layer cannot be split into the blocks, a layer
    /// has an adapter already, or memory runs out. Then the U-Net is as it was.
    pub fn install(unet: &mut UNet, config: &Adapter, seed: u64) -> Result<Self> {
        config.validate()?;
        let random = Random { seed };
        let mut layers = Vec::new();
        let mut places = BTreeMap::new();
        unet.adapt(&mut |site, weight| {
            if !is_target(config, &site.name) {
                return Ok(None);
            }
            let make = || match *config {
                Adapter::Lora { rank, alpha, .. } => low_rank(site, i64::from(rank), alpha, &random, weight),
                Adapter::Oft { blocks, constraint } => {
                    rotation(site, i64::from(blocks), constraint, weight, &mut places)
                }
            };
            let (learned, adapter) = libtorch::catch(make).context("cannot allocate the adapters")??;
            layers.push((site.clone(), learned));
            Ok(Some(adapter))
        })?;
        Ok(Self { config: config.clone(), layers })
    }

    /// What was installed.
    pub fn config(&self) -> &Adapter {
        &self.config
    }

    /// The parameters by name, in the order of execution: `LAYER.lora_A.weight` [rank, in] and `LAYER.lora_B.weight`
    /// [out, rank], or `LAYER.oft_R.weight` [blocks, b (b - 1) / 2], as peft calls them.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let parameters = self.layers.iter().flat_map(|(site, learned)| {
            let named =
                |(part, tensor): (&str, &Tensor)| (format!("{}.{part}.weight", site.name), tensor.shallow_clone());
            learned.parameters().into_iter().map(named).collect::<Vec<_>>()
        });
        parameters.collect()
    }

    /// How many numbers the parameters hold together.
    pub fn count(&self) -> usize {
        self.layers.iter().flat_map(|(_, learned)| learned.parameters()).map(|(_, tensor)| tensor.numel()).sum()
    }

    /// COFT: brings what has gone beyond the constraint back to it. To be called before each step and after the last
    /// one; of other adapters, and within the constraint, nothing changes.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn project(&self) -> Result<()> {
        let rotations = self.layers.iter().filter_map(|(_, learned)| match learned {
            Learned::Rotation(rotation) => Some(rotation),
            Learned::LowRank(_) => None,
        });
        Ok(libtorch::catch(|| rotations.for_each(RotationAdapter::project))?)
    }

    /// Gives the parameters the values of tensors with their names, such as those of a file.
    ///
    /// # Errors
    /// Names the first that is missing, has another shape, or belongs to none of the adapters. Then nothing has
    /// changed.
    pub fn load(&self, tensors: &Tensors) -> Result<()> {
        let parameters = self.parameters();
        for (name, parameter) in &parameters {
            let found =
                tensors.get(name).with_context(|| format!("the adapters have no {name}, which this U-Net needs"))?;
            ensure!(
                found.size() == parameter.size(),
                "the adapters' {name} has shape {:?}, but that of this U-Net has {:?}: they were learned for a model of \
                 another width or with another rank or number of blocks",
                found.size(),
                parameter.size()
            );
        }
        let names: BTreeMap<_, _> = parameters.iter().map(|(name, parameter)| (name.as_str(), parameter)).collect();
        if let Some(name) = tensors.keys().find(|name| !names.contains_key(name.as_str())) {
            anyhow::bail!("the adapters have {name}, which this U-Net has no place for");
        }
        let copy = || names.iter().for_each(|(name, parameter)| parameter.shallow_clone().copy_(&tensors[*name]));
        Ok(libtorch::catch(|| tch::no_grad(copy))?)
    }

    /// Multiplies what LoRA changes by `scale`: its B, for good.
    ///
    /// # Errors
    /// When the adapters are none of LoRA, or LibTorch refuses.
    pub fn scale(&self, scale: f64) -> Result<()> {
        ensure!(matches!(self.config, Adapter::Lora { .. }), "the adapters are none of LoRA, which alone has a scale");
        let multiply = || {
            for (_, adapter) in self.low_rank() {
                let _ = adapter.up.shallow_clone().g_mul_scalar_(scale);
            }
        };
        Ok(libtorch::catch(|| tch::no_grad(multiply))?)
    }

    /// The layers with LoRA: each with A, B and alpha.
    pub(crate) fn low_rank(&self) -> impl Iterator<Item = (&LinearSite, &LowRankAdapter)> {
        self.layers.iter().filter_map(|(site, learned)| match learned {
            Learned::LowRank(adapter) => Some((site, adapter)),
            Learned::Rotation(_) => None,
        })
    }
}

impl Learned {
    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        match self {
            Self::LowRank(LowRankAdapter { down, up, .. }) => vec![("lora_A", down), ("lora_B", up)],
            Self::Rotation(rotation) => vec![("oft_R", &rotation.triangles)],
        }
    }
}

/// Whether the layer of this name gets an adapter.
fn is_target(config: &Adapter, name: &str) -> bool {
    let all = matches!(config, Adapter::Lora { targets: LoraTargets::Kohya, .. });
    all || name.contains(".attn1.") || name.contains(".attn2.")
}

type Made = (Learned, Box<dyn LinearAdapter>);

fn low_rank(site: &LinearSite, rank: i64, alpha: Option<f64>, random: &Random, weight: &Tensor) -> Result<Made> {
    let LinearSite { name, in_features, out_features, .. } = site;
    let most = *in_features.min(out_features);
    ensure!(
        rank <= most,
        "the rank {rank} is larger than the layer {name}, which maps {in_features} numbers to {out_features}: use {most} at \
         most"
    );
    let to = (Kind::Float, weight.device());
    let down = random.fetch(&format!("{name}.lora_A.weight"), &[rank, *in_features], Init::FanIn(*in_features), to)?;
    let adapter = LowRankAdapter {
        down: down.set_requires_grad(true),
        up: Tensor::zeros([*out_features, rank], to).set_requires_grad(true),
        scale: alpha.unwrap_or(rank as f64) / rank as f64,
    };
    Ok((Learned::LowRank(adapter.shared()), Box::new(adapter)))
}

fn rotation(
    site: &LinearSite,
    blocks: i64,
    constraint: Option<f64>,
    weight: &Tensor,
    places: &mut BTreeMap<i64, Tensor>,
) -> Result<Made> {
    let LinearSite { name, in_features, .. } = site;
    ensure!(
        in_features % blocks == 0 && in_features / blocks > 1,
        "the layer {name} reads {in_features} numbers, which cannot be split into {blocks} equal blocks of two or more"
    );
    let block = in_features / blocks;
    // Layers of one width share them.
    let places = places.entry(block).or_insert_with(|| upper_triangle(block).to_device(weight.device()));
    let triangles = Tensor::zeros([blocks, block * (block - 1) / 2], (Kind::Float, weight.device()));
    let adapter = RotationAdapter::new(triangles.set_requires_grad(true), places.shallow_clone(), block, constraint);
    Ok((Learned::Rotation(adapter.shared()), Box::new(adapter)))
}
