//! The texts of a batch as keys and values: the same at all timesteps, or of each its own.

use std::fmt::Debug;

use anyhow::Result;
use clip::ClipTextModel;
use tch::{Device, Kind, Tensor};
use unet::{KvCache, UNet};

/// Texts that are projected together, so that the text encoder's memory stays bounded.
const ROWS: usize = 64;

/// How prompts become keys and values where that depends on the timestep, as a method has learned it.
pub trait Conditioning: Debug + Send {
    /// The token of the subject; prompts without it are the same at all timesteps.
    fn token(&self) -> i64;

    /// The keys and values of prompts with the token, given as ids [prompts, positions], each at one of `timesteps` [prompts];
    /// computed in `dtype`.
    ///
    /// # Errors
    /// What the models refuse.
    fn project(
        &self,
        text_encoder: &ClipTextModel,
        unet: &UNet,
        ids: &Tensor,
        timesteps: &Tensor,
        dtype: Kind,
    ) -> Result<KvCache>;
}

/// The texts of a batch.
pub(crate) enum Text {
    Constant(KvCache),
    Varying {
        /// Of the prompts that are the same at all timesteps.
        constant: Option<KvCache>,
        /// Of the others, at each step.
        steps: Vec<KvCache>,
        /// Where the batch's prompts are among the constant ones and the others behind them; none where they are in this order.
        order: Option<Tensor>,
    },
}

impl Text {
    /// Of prompts with these ids, which are constant where `varies` says no, projected as `constant` does that of the constant
    /// ones, for steps at these timesteps.
    pub(crate) fn varying(
        constant: Option<KvCache>,
        varies: &[bool],
        timesteps: &[f32],
        device: Device,
        mut project: impl FnMut(&[f32]) -> Result<KvCache>,
    ) -> Result<Self> {
        let count = varies.iter().filter(|varies| **varies).count();
        let mut steps = Vec::with_capacity(timesteps.len());
        for chunk in timesteps.chunks((ROWS / count.max(1)).max(1)) {
            let all = project(chunk)?;
            steps.extend((0..chunk.len()).map(|step| all.narrow((step * count) as i64, count as i64)));
        }
        let (mut next_constant, mut next_varying) = (0, (varies.len() - count) as i64);
        let place = |varies: &bool| {
            let next = if *varies { &mut next_varying } else { &mut next_constant };
            *next += 1;
            *next - 1
        };
        let order: Vec<i64> = varies.iter().map(place).collect();
        let order = (!order.is_sorted()).then(|| Tensor::from_slice(&order).to_device(device));
        Ok(Self::Varying { constant, steps, order })
    }

    /// At the step of an index; what has to be put together for it is kept in `made`.
    pub(crate) fn at<'a>(&'a self, index: usize, made: &'a mut Option<KvCache>) -> &'a KvCache {
        match self {
            Self::Constant(text) => text,
            Self::Varying { constant: None, steps, .. } => &steps[index],
            Self::Varying { constant: Some(constant), steps, order } => {
                made.insert(KvCache::joined(constant, &steps[index], order.as_ref()))
            }
        }
    }
}
