//! Reading LoRA files, in the keys of kohya's scripts, diffusers, peft and ComfyUI.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tch::{Kind, Tensor};
use weights::{Archive, Parameters};

use crate::keys::{Layers, Network, Networks, Part, foreign, split};
use crate::lora::{LayerChange, Lora, LowRank, parameter};

/// What kohya-compatible files put before the embedding of a new token, as `bundle_emb.TOKEN.clip_l`.
pub(crate) const BUNDLED: &str = "bundle_emb.";
/// Where diffusers' files have what peft knows of the adapter.
pub(crate) const METADATA: &str = "lora_adapter_metadata";

/// The embeddings of all tokens.
const TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// A layer's tensors as they are found.
#[derive(Default)]
struct Found {
    down: Option<Tensor>,
    up: Option<Tensor>,
    alpha: Option<f64>,
    change: LayerChange,
}

impl Lora {
    /// Reads a file for networks, whose parameters tell which layers there are, and their shapes.
    ///
    /// Kohya's keys are read (`lora_unet_….lora_down.weight`, `.alpha`, `.diff`, `.diff_b`, `bundle_emb.TOKEN.clip_l`; of SDXL with the
    /// original code's names of its U-Net's layers or with diffusers'),
    /// diffusers' (`unet.….lora.down.weight`, alpha in the header) and peft's and newer ComfyUI's (`lora_A`, `lora_B`).
    /// Where there is no alpha, it is the rank.
    ///
    /// # Errors
    /// When the file cannot be read, belongs to another model, or has a network of another kind; names the file and the
    /// key.
    pub fn read(path: &Path, networks: Networks<'_>) -> Result<Self> {
        let archive = Archive::open(path)?;
        let shown = path.display();
        let (layers, sdxl) = (Layers::new(networks), networks.is_sdxl());
        let mut found: BTreeMap<(Network, String), Found> = BTreeMap::new();
        let mut lora = Self::default();
        let mut embeddings: BTreeMap<String, BTreeMap<usize, Tensor>> = BTreeMap::new();
        let keys: Vec<&str> = archive.shapes().map(|(key, _)| key).collect();
        ensure!(!keys.is_empty(), "{shown} is empty, but a LoRA has tensors");
        if let Some(reason) = keys.iter().find_map(|key| foreign(key, sdxl)) {
            bail!("{shown} cannot be used: {reason}");
        }
        for key in keys {
            let tensor = archive.tensor(key)?.with_context(|| format!("{shown} has lost {key}"))?;
            ensure!(tensor.is_floating_point(), "{shown} is no LoRA: {key} does not hold floating-point numbers");
            if let Some(name) = key.strip_prefix(BUNDLED) {
                ensure!(
                    !name.ends_with("_out"),
                    "{shown} has {key}, an embedding that OneTrainer learned for a text encoder's output, which has no place among its \
                     tokens: train it without \"output embedding\""
                );
                let encoder = name.strip_suffix(".clip_l").map(|token| (token, 0));
                let encoder = encoder.or_else(|| Some((name.strip_suffix(".clip_g")?, 1)));
                let (token, encoder) =
                    encoder.unwrap_or_else(|| (name.split_once('.').map_or(name, |parts| parts.0), 0));
                let rows = if tensor.dim() == 1 { tensor.unsqueeze(0) } else { tensor };
                ensure!(rows.dim() == 2, "{shown} has {key} of shape {:?}, but must be [vectors, width]", rows.size());
                let before = embeddings.entry(token.to_owned()).or_default().insert(encoder, rows.to_kind(Kind::Float));
                ensure!(before.is_none(), "{shown} has two embeddings of {token}, the second one as {key}");
                continue;
            }
            let place = split(key).and_then(|(layer, part)| Some((layers.find(layer)?, part)));
            let Some(((network, layer), part)) = place else {
                bail!(
                    "{shown} has {key}, which changes nothing in this model: use a LoRA that was trained for {}, as the model is",
                    if sdxl { "SDXL" } else { "Stable Diffusion 1.x or 2.x" }
                );
            };
            found
                .entry((*network, layer.clone()))
                .or_default()
                .insert(part, tensor)
                .with_context(|| format!("{shown} cannot be read, because of {key}"))?;
        }
        let metadata = archive.metadata().get(METADATA).map(|text| Metadata::parse(text));
        let metadata = metadata.transpose().with_context(|| format!("{shown} has a header that cannot be read"))?;
        for ((network, layer), found) in found {
            let parameters = networks.get(network).with_context(|| format!("there is no {}", network.noun()))?;
            let alpha = metadata.as_ref().and_then(|metadata| metadata.alpha(network, &layer));
            let change = found.finish(alpha, &layer).and_then(|change| {
                check_shapes(&layer, &change, parameters)?;
                Ok(change)
            });
            let change = change.with_context(|| format!("{shown} cannot be used"))?;
            match network {
                Network::Unet => lora.unet.insert(layer, change),
                Network::TextEncoder => lora.text_encoder.insert(layer, change),
                Network::TextEncoder2 => lora.text_encoder_2.insert(layer, change),
            };
        }
        for (token, of_encoders) in embeddings {
            for (encoder, rows) in &of_encoders {
                let network = if *encoder == 0 { Network::TextEncoder } else { Network::TextEncoder2 };
                let table = networks.get(network).and_then(|parameters| parameter(parameters, TABLE));
                if let Some(width) = table.and_then(|table| table.size().get(1).copied()) {
                    ensure!(
                        rows.size()[1] == width,
                        "{shown} has an embedding of {token} of width {}, but this model's {} has {width}: use a LoRA that was trained \
                         for the same model",
                        rows.size()[1],
                        network.noun()
                    );
                }
            }
            let rows: Vec<&Tensor> = of_encoders.values().collect();
            let complete = of_encoders.keys().copied().eq(0..if sdxl { 2 } else { 1 });
            ensure!(
                complete && rows.iter().all(|other| other.size()[0] == rows[0].size()[0]),
                "{shown} has an embedding of {token} for other text encoders than this model's: {} needs {}",
                if sdxl { "SDXL" } else { "Stable Diffusion 1.x or 2.x" },
                if sdxl { "clip_l and clip_g" } else { "one" }
            );
            lora.embeddings.insert(token, Tensor::cat(&rows, 1));
        }
        Ok(lora)
    }
}

impl Found {
    fn insert(&mut self, part: Part, tensor: Tensor) -> Result<()> {
        let slot = match part {
            Part::Alpha => {
                ensure!(tensor.numel() == 1, "it has the shape {:?}, but alpha is one number", tensor.size());
                let alpha = tensor.reshape([1]).double_value(&[0]);
                ensure!(alpha.is_finite(), "alpha is {alpha}, but must be finite");
                self.alpha = Some(alpha);
                return Ok(());
            }
            Part::Down => &mut self.down,
            Part::Up => &mut self.up,
            Part::Weight => &mut self.change.weight,
            Part::Bias => &mut self.change.bias,
        };
        ensure!(slot.replace(tensor).is_none(), "the layer has it twice, under another name too");
        Ok(())
    }

    fn finish(self, alpha: Option<f64>, layer: &str) -> Result<LayerChange> {
        let Self { down, up, alpha: own, mut change } = self;
        change.low_rank = match (down, up) {
            (Some(down), Some(up)) => {
                ensure!(
                    down.dim() >= 2 && up.dim() >= 2 && down.size()[0] == up.size()[1] && down.size()[0] > 0,
                    "the factors of {layer} have the shapes {:?} and {:?}, whose product is no matrix",
                    up.size(),
                    down.size()
                );
                let alpha = own.or(alpha).unwrap_or(down.size()[0] as f64);
                Some(LowRank { down, up, alpha })
            }
            (None, None) => None,
            (down, _) => {
                let [has, lacks] = if down.is_some() { ["down", "up"] } else { ["up", "down"] };
                bail!("of {layer} there is lora_{has}, but no lora_{lacks}");
            }
        };
        Ok(change)
    }
}

/// The shapes of what the file would change, against the model's.
fn check_shapes(layer: &str, change: &LayerChange, parameters: &Parameters) -> Result<()> {
    let low_rank = change.low_rank.as_ref().map(|LowRank { down, up, .. }| {
        let of_down = down.size();
        ("weight", [&[up.size()[0]], &of_down[1..]].concat())
    });
    let full = [("weight", &change.weight), ("bias", &change.bias)];
    let full = full.into_iter().filter_map(|(part, change)| Some((part, change.as_ref()?.size())));
    for (part, size) in low_rank.into_iter().chain(full) {
        let name = format!("{layer}.{part}");
        let Some(parameter) = parameter(parameters, &name) else {
            bail!("it changes {name}, which this model does not have");
        };
        // A 1×1 convolution may have its two dimensions or not.
        let plain = |size: &[i64]| if let [out, from, 1, 1] = size { vec![*out, *from] } else { size.to_vec() };
        ensure!(
            plain(&size) == plain(&parameter.size()),
            "it is of a model of another width, for its {name} has the shape {size:?}, and this model's {:?} (Stable \
             Diffusion 1.x reads text of width 768, 2.x of 1024, SDXL of 2048)",
            parameter.size()
        );
    }
    Ok(())
}

/// What peft has written of the adapters.
struct Metadata(serde_json::Map<String, Value>);

impl Metadata {
    fn parse(text: &str) -> Result<Self> {
        Ok(Self(serde_json::from_str(text)?))
    }

    /// A layer's alpha, if the header says it.
    fn alpha(&self, network: Network, layer: &str) -> Option<f64> {
        let get = |key: &str| self.0.get(&format!("{}{key}", network.diffusers()));
        let of_layer = |pattern: &str| {
            let all = get(pattern)?.as_object()?;
            let ends =
                |key: &String| layer == key || layer.strip_suffix(key.as_str()).is_some_and(|head| head.ends_with('.'));
            all.iter().find(|(key, _)| ends(key))?.1.as_f64()
        };
        let alpha = of_layer("alpha_pattern").or_else(|| get("lora_alpha")?.as_f64())?;
        let rank_stabilised = get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        let rank = of_layer("rank_pattern").or_else(|| get("r")?.as_f64());
        // Then the change is multiplied by alpha / √r.
        Some(if rank_stabilised { alpha * rank.unwrap_or(1.0).sqrt() } else { alpha })
    }
}
