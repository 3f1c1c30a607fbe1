//! What a method is, and what it is given to compute the losses of a batch.

use std::fmt::Debug;

use anyhow::Result;
use runs::{Phase, TrainConfig};
use sampling::Pipeline;
use tch::Tensor;
use unet::{AttentionObserver, KvCache, UNet};

use crate::{Batch, Denoising, Learned, LossTerm};

/// A method of personalisation. Only its name and its recipe must be given; the rest does what most methods do.
pub trait Method: Debug + Sync {
    /// Its name in configurations and on the command line.
    fn name(&self) -> &'static str;

    /// Its configuration on Stable Diffusion: the values of its paper or of its authors' code.
    fn recipe(&self) -> TrainConfig;

    /// Adds to a pipeline what is to be learned, as it is before the first step: the placeholder token, and the
    /// configuration's adapter.
    ///
    /// # Errors
    /// When the configuration does not fit the model.
    fn install(&self, pipeline: &mut Pipeline, config: &TrainConfig) -> Result<Learned> {
        Learned::start(pipeline, config)
    }

    /// Brings parameters back within the method's constraint: before each step, and at the end of a phase.
    ///
    /// # Errors
    /// What LibTorch refuses.
    fn constrain(&self, learned: &Learned) -> Result<()> {
        learned.adapters.as_ref().map_or(Ok(()), adapters::Adapters::project)
    }

    /// Makes a pipeline with what was learned ready to generate images for long: merges adapters into the weights.
    ///
    /// # Errors
    /// What LibTorch refuses.
    fn settle(&self, pipeline: &mut Pipeline, learned: &Learned) -> Result<()> {
        if learned.adapters.is_some() {
            pipeline.unet.merge_adapters();
        }
        Ok(())
    }

    /// The keys and values of prompts, given their hidden states [prompts, positions, width] in the dtype to compute in.
    ///
    /// # Errors
    /// What the U-Net refuses.
    fn project(&self, unet: &UNet, encoder_hidden_states: &Tensor) -> Result<KvCache> {
        unet.project(encoder_hidden_states)
    }

    /// The terms of the loss of a batch, on the autograd graph; their sum is differentiated. The same terms for each batch of a
    /// phase.
    ///
    /// # Errors
    /// What the models refuse.
    fn losses(&self, step: &Step<'_>) -> Result<Vec<LossTerm>> {
        let prediction = step.predict(None)?;
        step.diffusion(&prediction)
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
