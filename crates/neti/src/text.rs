//! What a layer of the U-Net takes its keys and its values from.

use anyhow::{Result, ensure};
use clip::ClipTextModel;
use tch::{Kind, Tensor};

use crate::Mapper;
use crate::mapper::norm;

/// Prompts, each at a timestep.
#[derive(Debug)]
pub struct Prompts<'a> {
    /// The ids of their tokens [prompts, positions], best left on the CPU.
    pub ids: &'a Tensor,
    /// The id of the token that the mapper gives an embedding.
    pub token: i64,
    /// `[prompts]`.
    pub timesteps: &'a Tensor,
    /// The dtype that the text encoder computes in.
    pub dtype: Kind,
}

/// Texts that are encoded at once: a call for each layer would take longer, and one for all of them much memory where there are many
/// prompts.
const TOGETHER: usize = 64;

impl Mapper {
    /// In each layer, the text encoder's hidden states [prompts, positions, width] that it takes keys from, and those that it takes
    /// values from: where the token stands, b / |b| · |h| of the bypass b, weighed by the configuration, is added to the output h
    /// before the last norm. Of `kept` [layers, prompts] see [`Mapper::forward`].
    ///
    /// # Errors
    /// When there are other numbers of timesteps or to keep, or what the text encoder refuses.
    pub fn texts(
        &self,
        text_encoder: &ClipTextModel,
        prompts: &Prompts<'_>,
        kept: Option<&Tensor>,
    ) -> Result<Vec<[Tensor; 2]>> {
        let Prompts { ids, timesteps, .. } = prompts;
        ensure!(
            ids.dim() == 2 && timesteps.size() == ids.size()[..1],
            "there are ids of shape {:?} and timesteps of shape {:?}, but each prompt has one timestep",
            ids.size(),
            timesteps.size()
        );
        let (layers, count) = (self.layers(), ids.size()[0] as usize);
        if let Some(shape) = kept.map(Tensor::size) {
            ensure!(
                shape == [layers as i64, count as i64],
                "the numbers to keep have the shape {shape:?}, but there are {count} prompts in {layers} layers"
            );
        }
        let mut texts = Vec::with_capacity(layers);
        let some = (TOGETHER / count.max(1)).max(1);
        for first in (0..layers).step_by(some) {
            let size = some.min(layers - first) as i64;
            let kept = kept.map(|kept| kept.narrow(0, first as i64, size));
            let pair = self.texts_of(text_encoder, prompts, first as i64, size, kept.as_ref())?;
            let [keys_from, values_from] = pair.map(|xs| xs.chunk(size, 0));
            texts.extend(keys_from.into_iter().zip(values_from).map(|(keys, values)| [keys, values]));
        }
        Ok(texts)
    }

    /// Those of `size` layers from `first` on, [size · prompts, positions, width], layer by layer.
    fn texts_of(
        &self,
        text_encoder: &ClipTextModel,
        &Prompts { ids, token, timesteps, dtype }: &Prompts<'_>,
        first: i64,
        size: i64,
        kept: Option<&Tensor>,
    ) -> Result<[Tensor; 2]> {
        let count = ids.size()[0];
        let layers = Tensor::arange_start(first, first + size, (Kind::Int64, timesteps.device()));
        let (layers, timesteps) = (layers.repeat_interleave_self_int(count, 0, None), timesteps.repeat([size]));
        let kept = kept.map(|kept| kept.flatten(0, 1));
        let own = self.at(&timesteps, &layers, kept.as_ref());
        let known = text_encoder.embed(ids)?.to_kind(dtype).repeat([size, 1, 1]);
        let [embedding, bypass] = own.map(|xs| xs.to_kind(dtype).unsqueeze(1));
        let place = libtorch::upload(&ids.eq(token).unsqueeze(-1), known.device()).repeat([size, 1, 1]);
        let output = text_encoder.encode(&embedding.where_self(&place, &known), 0)?;
        let added = &output + (&bypass / norm(&bypass)) * norm(&output) * self.config().bypass;
        let values_from = added.where_self(&place, &output);
        Ok([output, values_from].map(|xs| text_encoder.final_layer_norm(&xs)))
    }
}
