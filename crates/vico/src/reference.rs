//! What the reference's pass leaves.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};
use unet::{AttentionObserver, CrossAttentionLayer, TransformerPlace};

use crate::mask::{attention_loss, subject};

/// Where a prompt has the token and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// Of the token that names the subject; of the end of text, where the prompt does not name it.
    pub token: i64,
    /// Of the first end of text.
    pub end: i64,
}

/// Of a batch of references what the blocks look at.
#[derive(Debug)]
pub struct References {
    /// By the transformers' names, in the order of execution.
    pub(crate) places: Vec<(String, Place)>,
}

/// The reference at one transformer.
#[derive(Debug)]
pub(crate) struct Place {
    /// [batch, pixels, channels], on the graph of the reference's pass.
    pub(crate) features: Tensor,
    /// The attention to the token and to the end of text, means over heads, f32: [batch, 2, pixels], likewise.
    maps: Tensor,
    /// The pixels that show the subject: [batch, pixels], of bools.
    pub(crate) subject: Tensor,
    /// Of the feature map.
    height: i64,
    width: i64,
}

/// Where a reference shows the subject, as one of the blocks sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// The transformer that the block stands behind.
    pub place: String,
    /// Rows of its feature map.
    pub height: u32,
    /// Columns, likewise.
    pub width: u32,
    /// Of each pixel, row by row, whether the block looks at it.
    pub subject: Vec<bool>,
}

impl References {
    /// The regulariser, summed over the layers, of shape [], f32, on the graph of the reference's pass.
    pub fn attention_loss(&self) -> Tensor {
        self.places.iter().map(|(_, place)| attention_loss(&place.maps)).sum()
    }

    /// The masks of a reference of the batch. Waits for the GPU.
    ///
    /// # Errors
    /// When there is no such reference, or what LibTorch refuses.
    pub fn masks(&self, number: i64) -> Result<Vec<Mask>> {
        let mask = |(name, place): &(String, Place)| {
            let count = place.subject.size()[0];
            ensure!((0..count).contains(&number), "there is no reference {number} in a batch of {count}");
            let subject = libtorch::catch(|| Vec::<bool>::try_from(&place.subject.get(number)))??;
            Ok(Mask { place: name.clone(), height: place.height as u32, width: place.width as u32, subject })
        };
        self.places.iter().map(mask).collect()
    }

    /// Those of the numbers `order`, `[n]`, in this order.
    #[must_use]
    pub fn gathered(&self, order: &Tensor) -> Self {
        let gather = |place: &Place| {
            let [features, maps, subject] =
                [&place.features, &place.maps, &place.subject].map(|xs| xs.index_select(0, order));
            Place { features, maps, subject, height: place.height, width: place.width }
        };
        Self { places: self.places.iter().map(|(name, place)| (name.clone(), gather(place))).collect() }
    }
}

/// Watches the attention to each sample's own token and end of text, behind whose transformers blocks stand.
pub(crate) struct Watch<'a> {
    places: &'a [TransformerPlace],
    /// All positions of all samples.
    tokens: Vec<i64>,
    /// Of each sample, or of one for all, the numbers of its own two among them: [samples, 2].
    own: Tensor,
    /// By transformer, in the order of execution.
    seen: Vec<(String, Seen)>,
}

struct Seen {
    maps: Tensor,
    height: i64,
    width: i64,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(places: &'a [TransformerPlace], positions: &[Positions]) -> Self {
        let distinct: BTreeSet<i64> = positions.iter().flat_map(|sample| [sample.token, sample.end]).collect();
        let tokens: Vec<i64> = distinct.into_iter().collect();
        let number = |position: i64| tokens.partition_point(|token| *token < position) as i64;
        let own: Vec<i64> = positions.iter().flat_map(|sample| [number(sample.token), number(sample.end)]).collect();
        let own = Tensor::from_slice(&own).reshape([-1, 2]);
        Self { places, tokens, own, seen: Vec::new() }
    }

    /// The transformer of a cross-attention layer, if a block stands behind it.
    fn place_of(&self, layer: &str) -> Option<&TransformerPlace> {
        let is_of = |place: &&TransformerPlace| {
            layer.strip_prefix(&place.name).is_some_and(|rest| rest.starts_with(".transformer_blocks."))
        };
        self.places.iter().find(is_of)
    }

    /// With the transformers' features.
    pub(crate) fn finish(self, mut features: BTreeMap<String, Tensor>) -> References {
        let place = |(name, Seen { maps, height, width }): (String, Seen)| {
            let features = features.remove(&name)?;
            let subject = subject(&maps.select(1, 0));
            Some((name, Place { features, maps, subject, height, width }))
        };
        References { places: self.seen.into_iter().filter_map(place).collect() }
    }
}

impl AttentionObserver for Watch<'_> {
    fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    fn watches(&self, layer: &str) -> bool {
        self.place_of(layer).is_some()
    }

    fn observe(&mut self, layer: &CrossAttentionLayer<'_>, probabilities: &Tensor) {
        let Some(place) = self.place_of(layer.name) else { return };
        let name = place.name.clone();
        let maps = probabilities.to_kind(Kind::Float).mean_dim([2i64].as_slice(), false, Kind::Float);
        let (batch, pixels) = (maps.size()[0], maps.size()[2]);
        let own = libtorch::upload(&self.own, maps.device()).unsqueeze(-1).expand([batch, 2, pixels], false);
        let seen = Seen { maps: maps.gather(1, &own, false), height: layer.height, width: layer.width };
        // Of several transformer blocks the last one's.
        self.seen.retain(|(known, _)| *known != name);
        self.seen.push((name, seen));
    }
}
