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

impl Mapper {
    /// The text encoder's hidden states [prompts, positions, width] that a layer takes keys from, and those that it takes values
    /// from: where the token stands, b / |b| · |h| of the bypass b, weighed by the configuration, is added to the output h before
    /// the last norm. `kept` as in [`Mapper::forward`].
    ///
    /// # Errors
    /// As [`Mapper::forward`], or what the text encoder refuses.
    pub fn texts(
        &self,
        text_encoder: &ClipTextModel,
        prompts: &Prompts<'_>,
        layer: usize,
        kept: Option<&Tensor>,
    ) -> Result<[Tensor; 2]> {
        let &Prompts { ids, token, timesteps, dtype } = prompts;
        ensure!(
            ids.dim() == 2 && timesteps.size() == ids.size()[..1],
            "there are ids of shape {:?} and timesteps of shape {:?}, but each prompt has one timestep",
            ids.size(),
            timesteps.size()
        );
        let known = text_encoder.embed(ids)?.to_kind(dtype);
        let own = self.forward(timesteps, layer, kept)?;
        let [embedding, bypass] = own.map(|xs| xs.to_kind(dtype).unsqueeze(1));
        let place = libtorch::upload(&ids.eq(token).unsqueeze(-1), known.device());
        let output = text_encoder.last_layer(&embedding.where_self(&place, &known))?;
        let added = &output + (&bypass / norm(&bypass)) * norm(&output) * self.config().bypass;
        let values_from = added.where_self(&place, &output);
        Ok([output, values_from].map(|xs| text_encoder.final_layer_norm(&xs)))
    }
}
