//! Writing LoRA files.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use options::LoraKeys;
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use crate::keys::Network;
use crate::lora::{LayerChange, Lora, LowRank};
use crate::read::{BUNDLED, METADATA};

/// A file's tensors, and its header's metadata.
type Contents = (Vec<(String, Tensor)>, Vec<(&'static str, String)>);

impl Lora {
    /// Writes a file whose tensors are of `kind`; `metadata` is added to its header.
    ///
    /// Kohya's keys have a place for all there is. In diffusers' keys alpha is the rank, whatever it was, for not all
    /// of its readers look into the header.
    ///
    /// # Errors
    /// When `kind` cannot hold a value, diffusers' keys have no place for something (full deltas, embeddings), or the
    /// file cannot be written; then whatever was there before is unchanged.
    pub fn write(&self, path: &Path, keys: LoraKeys, kind: Kind, metadata: &[(&str, &str)]) -> Result<()> {
        let (tensors, own) = match keys {
            LoraKeys::Kohya => self.kohya(kind)?,
            LoraKeys::Diffusers => self.diffusers(kind)?,
        };
        let own = own.iter().map(|(key, value)| (*key, value.as_str()));
        weights::save_with_metadata(path, tensors, &own.chain(metadata.iter().copied()).collect::<Vec<_>>())
    }

    fn networks(&self) -> impl Iterator<Item = (Network, &String, &LayerChange)> {
        Network::ALL
            .into_iter()
            .flat_map(|network| self.layers(network).iter().map(move |(name, change)| (network, name, change)))
    }

    /// The largest rank, and the alpha that belongs to it.
    fn rank(&self) -> Option<(i64, f64)> {
        let ranks = self.networks().filter_map(|(_, _, change)| change.low_rank.as_ref());
        ranks.map(|low_rank| (low_rank.rank(), low_rank.alpha)).max_by_key(|(rank, _)| *rank)
    }

    fn kohya(&self, kind: Kind) -> Result<Contents> {
        let mut tensors = Vec::new();
        for (network, name, change) in self.networks() {
            let sdxl = self.sdxl.as_ref();
            let original = match sdxl.filter(|_| network == Network::Unet) {
                Some(sdxl) => sdxl.kohya(name).with_context(|| format!("SDXL's U-Net has no layer {name}"))?,
                None => name.clone(),
            };
            let key = format!("{}{}", network.kohya(sdxl.is_some()), original.replace('.', "_"));
            let mut add = |part: &str, tensor: &Tensor| {
                tensors.push((format!("{key}.{part}"), converted(tensor, kind, name)?));
                anyhow::Ok(())
            };
            if let Some(LowRank { down, up, .. }) = &change.low_rank {
                add("lora_down.weight", down)?;
                add("lora_up.weight", up)?;
            }
            for (part, full) in [("diff", &change.weight), ("diff_b", &change.bias)] {
                full.iter().try_for_each(|full| add(part, full))?;
            }
            if let Some(LowRank { alpha, .. }) = change.low_rank {
                tensors.push((format!("{key}.alpha"), Tensor::from(alpha as f32)));
            }
        }
        for (token, rows) in &self.embeddings {
            let width = rows.size().last().copied().unwrap_or(0);
            let first = self.sdxl.as_ref().map_or(width, |sdxl| sdxl.first_width);
            for (encoder, from, width) in [("clip_l", 0, first), ("clip_g", first, width - first)] {
                if width > 0 {
                    let rows = rows.narrow(-1, from, width).contiguous();
                    tensors.push((format!("{BUNDLED}{token}.{encoder}"), converted(&rows, kind, token)?));
                }
            }
        }
        let mut metadata = vec![("ss_network_module", "networks.lora".to_owned())];
        if let Some((rank, alpha)) = self.rank() {
            metadata.extend([("ss_network_dim", rank.to_string()), ("ss_network_alpha", alpha.to_string())]);
        }
        Ok((tensors, metadata))
    }

    fn diffusers(&self, kind: Kind) -> Result<Contents> {
        ensure!(
            self.embeddings.is_empty(),
            "diffusers' keys have no place for an embedding: write it to a file of its own"
        );
        let (mut tensors, mut metadata) = (Vec::new(), Map::new());
        for (network, name, change) in self.networks() {
            let LayerChange { low_rank: Some(LowRank { down, up, alpha }), weight: None, bias: None } = change else {
                anyhow::bail!("diffusers' keys have no place for the full change of {name}: write kohya's keys");
            };
            let scale = alpha / down.size()[0] as f64;
            let up = if scale == 1.0 { up.shallow_clone() } else { up * scale };
            let key = format!("{}{name}.lora", network.diffusers());
            tensors.push((format!("{key}.down.weight"), converted(down, kind, name)?));
            tensors.push((format!("{key}.up.weight"), converted(&up, kind, name)?));
        }
        for network in Network::ALL {
            let layers = self.layers(network);
            let ranks =
                layers.iter().filter_map(|(name, change)| Some((name.clone(), change.low_rank.as_ref()?.rank())));
            let ranks: Vec<(String, i64)> = ranks.collect();
            let Some(most) = ranks.iter().map(|(_, rank)| *rank).max() else { continue };
            let other = ranks.iter().filter(|(_, rank)| *rank != most);
            let pattern: Map<String, Value> = other.map(|(name, rank)| (name.clone(), json!(rank))).collect();
            let names: Vec<&String> = ranks.iter().map(|(name, _)| name).collect();
            let about = json!({
                "peft_type": "LORA", "r": most, "lora_alpha": most, "rank_pattern": pattern, "alpha_pattern": pattern,
                "target_modules": names, "bias": "none", "use_dora": false, "use_rslora": false,
            });
            let about = about.as_object().into_iter().flatten();
            metadata.extend(about.map(|(key, value)| (format!("{}{key}", network.diffusers()), value.clone())));
        }
        Ok((tensors, vec![(METADATA, serde_json::to_string(&metadata)?)]))
    }
}

/// The tensor in another dtype, if that can hold its values.
fn converted(tensor: &Tensor, kind: Kind, name: &str) -> Result<Tensor> {
    let converted =
        libtorch::catch(|| tensor.detach().to_kind(kind)).with_context(|| format!("cannot convert {name}"))?;
    let overflow = kind == Kind::Half && !bool::try_from(converted.isfinite().all())?;
    ensure!(!overflow, "the change of {name} does not fit into fp16, which ends at 65504; choose bf16 or fp32");
    Ok(converted)
}
