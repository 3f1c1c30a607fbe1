//! One batch on its way to a loss.

use anyhow::Result;
use runs::{Phase, TrainConfig};
use sampling::Pipeline;
use tch::Tensor;
use unet::AttentionObserver;

use crate::{Denoising, Learned, Method};

/// One batch with all its randomness.
#[derive(Debug)]
pub struct Batch {
    /// The augmented crops' latents [batch, 4, h, w], f32, sampled and scaled; with prior preservation those of the subject come
    /// first, as many of the class noun follow.
    pub latents: Tensor,
    /// The noise to be predicted: [batch, 4, h, w], standard normal.
    pub noise: Tensor,
    /// One for each image: `[batch]`, int64 in 0..1000.
    pub timesteps: Tensor,
    /// Where the loss of the subject's samples counts, [samples, 1, h, w] of 0 and 1; none where it counts everywhere.
    pub mask: Option<Tensor>,
    /// The prompts of the subject's samples: one for all, or one for each.
    pub prompts: Vec<String>,
}

/// How the terms of a step's batches become one where gradients are accumulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The term is a mean over samples: the step's is the mean over its batches.
    Mean,
    /// The term is a sum over samples: the step's is the sum over its batches.
    Sum,
}

/// A named part of a loss.
#[derive(Debug)]
pub struct LossTerm {
    /// Its name in logs, which adds `_loss`.
    pub name: &'static str,
    /// With its weight: of shape [], f32, on the autograd graph.
    pub value: Tensor,
    /// How it adds up over the batches of a step.
    pub reduction: Reduction,
}

impl LossTerm {
    /// A term that is a mean over samples.
    pub fn mean(name: &'static str, value: Tensor) -> Self {
        Self { name, value, reduction: Reduction::Mean }
    }
}

/// What a method is given to compute the losses of a batch.
#[derive(Debug)]
pub struct Step<'a> {
    /// The method itself.
    pub method: &'a dyn Method,
    /// The model.
    pub pipeline: &'a Pipeline,
    /// The configuration.
    pub config: &'a TrainConfig,
    /// The phase.
    pub phase: &'a Phase,
    /// What is learned beside the model's own parameters.
    pub learned: &'a Learned,
    /// The noise schedule.
    pub denoising: &'a Denoising,
    /// The batch.
    pub batch: &'a Batch,
    /// The hidden states [prompts, positions, width] of the batch's prompts: one for all samples or one for each; with prior
    /// preservation the class noun's follow, as many.
    pub encoder_hidden_states: &'a Tensor,
}

impl Step<'_> {
    /// The samples of the subject; those behind are of the class noun.
    pub fn samples(&self) -> i64 {
        self.batch.latents.size()[0] / if self.config.prior.is_some() { 2 } else { 1 }
    }

    /// What the U-Net makes of the noisy latents: [batch, 4, h, w] in the dtype of computation.
    ///
    /// # Errors
    /// What the U-Net refuses.
    pub fn predict(&self, observer: Option<&mut dyn AttentionObserver>) -> Result<Tensor> {
        let noisy = self.denoising.noisy(self.batch)?;
        let (size, prompts) = (noisy.size()[0], self.encoder_hidden_states.size()[0]);
        let text = self.encoder_hidden_states.to_kind(noisy.kind());
        // The U-Net reads one prompt for all samples, or one for each.
        let text = if prompts == 1 { text } else { text.repeat_interleave_self_int(size / prompts, 0, None) };
        let text = self.method.project(&self.pipeline.unet, &text)?;
        self.pipeline.unet.forward_cached(&noisy, &self.batch.timesteps, &text, observer)
    }

    /// The loss `diffusion` of a prediction: the mean squared error; with prior preservation also `prior`, that of the class
    /// images with its weight.
    ///
    /// # Errors
    /// What LibTorch refuses.
    pub fn diffusion(&self, prediction: &Tensor) -> Result<Vec<LossTerm>> {
        let _span = tracing::trace_span!("train/loss").entered();
        self.denoising.losses(self.batch, prediction)
    }
}
