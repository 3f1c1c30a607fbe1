//! An observer of the U-Net that sums attention.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};
use unet::{AttentionObserver, CrossAttentionLayer};

use crate::config::factor;
use crate::{Config, HeatMaps};

/// Watches the attention to all tokens of a prompt over the passes that make a image; see the [crate].
#[derive(Debug)]
pub struct HeatMapRecorder {
    config: Config,
    tokens: Vec<i64>,
    /// Height and width.
    latents: (i64, i64),
    images: i64,
    /// By the place in the order of execution.
    layers: BTreeMap<usize, LayerSum>,
    /// The factors of observed layers that did not count.
    others: BTreeSet<i64>,
}

/// The attention in one layer, summed over passes.
#[derive(Debug)]
struct LayerSum {
    height: i64,
    width: i64,
    passes: u64,
    /// [images, tokens, heads, height · width].
    sum: Tensor,
}

impl HeatMapRecorder {
    /// For a prompt of so many `positions`, with the start and the end of the text and without padding, and latents of
    /// this height and width. Of each batch, the last `images` samples count: with guidance, those of the prompt.
    ///
    /// # Errors
    /// When a value of `config` is out of range, or there are fewer than two positions, no images or no latents.
    pub fn new(config: Config, positions: usize, latents: (i64, i64), images: usize) -> Result<Self> {
        config.validate()?;
        ensure!(positions >= 2, "heat maps are given {positions} position(s), but any text has a start and an end");
        ensure!(images > 0, "heat maps need at least one image");
        ensure!(latents.0 > 0 && latents.1 > 0, "heat maps are asked for latents of the size {latents:?}");
        let tokens = (0..positions as i64).collect();
        let (layers, others) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { config, tokens, latents, images: images as i64, layers, others })
    }

    /// The heat maps of all that was seen.
    ///
    /// # Errors
    /// When no layer that counts was seen.
    pub fn finish(&self) -> Result<HeatMaps> {
        let Config { factors, normalize, .. } = &self.config;
        ensure!(
            !self.layers.is_empty(),
            "the U-Net showed no cross-attention layer that is {factors:?} times smaller than the latents of \
             {}x{}, only {:?}; choose other factors",
            self.latents.0,
            self.latents.1,
            self.others
        );
        let maps = libtorch::catch(|| tch::no_grad(|| self.mean(*normalize)))?;
        let passes = self.layers.values().map(|layer| layer.passes).max().unwrap_or(0);
        Ok(HeatMaps { maps, passes })
    }

    /// [images, positions, height, width].
    fn mean(&self, normalize: bool) -> Tensor {
        let (height, width) = self.latents;
        let shape = [self.images, self.tokens.len() as i64, height, width];
        let of_layer = |layer: &LayerSum| {
            let maps = layer.sum.reshape([shape[0] * shape[1], -1, layer.height, layer.width]);
            let maps = maps.upsample_bicubic2d([height, width], false, None, None).clamp_min(0.0);
            (maps.size()[1], maps.sum_dim_intlist([1i64].as_slice(), false, maps.kind()))
        };
        let (heads, sum) = self
            .layers
            .values()
            .map(of_layer)
            .reduce(|(some, sum), (more, maps)| (some + more, sum + maps))
            .expect("the caller has seen layers");
        let maps = (sum / heads as f64).reshape(shape);
        if !normalize {
            return maps;
        }
        let words = maps.narrow(1, 1, shape[1] - 2).sum_dim_intlist([1i64].as_slice(), true, maps.kind());
        maps / (words + 1e-6)
    }
}

impl AttentionObserver for HeatMapRecorder {
    fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    fn observe(&mut self, layer: &CrossAttentionLayer<'_>, probabilities: &Tensor) {
        if !self.config.takes(layer, self.latents) {
            self.others.insert(factor(layer, self.latents));
            return;
        }
        let kind = if probabilities.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let before = probabilities.size()[0] - self.images;
        let maps = probabilities.detach().narrow(0, before, self.images).to_kind(kind);
        let &CrossAttentionLayer { index, height, width, .. } = layer;
        match self.layers.get_mut(&index) {
            Some(layer) => {
                layer.sum += maps;
                layer.passes += 1;
            }
            None => {
                // The first pass's maps may be a view of all that the layer has computed.
                self.layers.insert(index, LayerSum { height, width, passes: 1, sum: maps.copy() });
            }
        }
    }
}
