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

    /// The keys and values of prompts with the token, given as ids [prompts, positions], each at one of `timesteps`, `[prompts]`;
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
        /// Of the prompts that are the same at all timesteps, each once.
        constant: Option<KvCache>,
        /// Of the others at each step, likewise.
        steps: Vec<KvCache>,
        /// Of each prompt of the batch its number among the constant ones and, behind them, the others.
        order: Tensor,
    },
}

/// The prompts of a batch, each once, by whether they vary with the timestep.
pub(crate) struct Distinct {
    pub(crate) constant: Vec<Vec<i64>>,
    pub(crate) varying: Vec<Vec<i64>>,
    order: Vec<i64>,
}

impl Distinct {
    /// Of prompts given as ids, which vary where they have the token.
    pub(crate) fn of(prompts: &[Vec<i64>], token: i64) -> Self {
        let (mut constant, mut varying): (Vec<Vec<i64>>, Vec<Vec<i64>>) = (Vec::new(), Vec::new());
        let places: Vec<(bool, usize)> = prompts
            .iter()
            .map(|ids| {
                let varies = ids.contains(&token);
                let known = if varies { &mut varying } else { &mut constant };
                let place = known.iter().position(|known| known == ids).unwrap_or_else(|| {
                    known.push(ids.clone());
                    known.len() - 1
                });
                (varies, place)
            })
            .collect();
        let first = constant.len();
        let order = places.into_iter().map(|(varies, place)| (place + if varies { first } else { 0 }) as i64).collect();
        Self { constant, varying, order }
    }
}

impl Text {
    /// Of prompts at steps of these timesteps, given the keys and values of the constant ones; `project` makes those of the others
    /// at some timesteps, of each all prompts.
    pub(crate) fn varying(
        prompts: &Distinct,
        constant: Option<KvCache>,
        timesteps: &[f32],
        device: Device,
        mut project: impl FnMut(&[f32]) -> Result<KvCache>,
    ) -> Result<Self> {
        let count = prompts.varying.len();
        let mut steps = Vec::with_capacity(timesteps.len());
        for chunk in timesteps.chunks((ROWS / count.max(1)).max(1)) {
            let all = project(chunk)?;
            steps.extend((0..chunk.len()).map(|step| all.narrow((step * count) as i64, count as i64)));
        }
        Ok(Self::Varying { constant, steps, order: Tensor::from_slice(&prompts.order).to_device(device) })
    }

    /// At the step of an index; what has to be put together for it is kept in `made`.
    pub(crate) fn at<'a>(&'a self, index: usize, made: &'a mut Option<KvCache>) -> &'a KvCache {
        match self {
            Self::Constant(text) => text,
            Self::Varying { constant, steps, order } => {
                let parts: Vec<&KvCache> = constant.iter().chain([&steps[index]]).collect();
                made.insert(KvCache::gathered(&parts, order))
            }
        }
    }
}
