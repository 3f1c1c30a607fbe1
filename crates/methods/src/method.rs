//! What a method is, and what it is given to compute the losses of a batch.

use std::fmt::Debug;

use anyhow::{Result, ensure};
use runs::{Group, Phase, TrainConfig};
use sampling::{Pipeline, PromptEmbeds};
use tch::{Kind, Tensor};
use unet::{AttentionObserver, KvCache};

use crate::{Batch, Denoising, Learned, LossTerm};

/// A method of personalisation. Only its name and its recipe must be given; the rest does what most methods do.
pub trait Method: Debug + Sync {
    /// Its name in configurations and on the command line.
    fn name(&self) -> &'static str;

    /// Its configuration on Stable Diffusion: the values of its paper or of its authors' code.
    fn recipe(&self) -> TrainConfig;

    /// Makes sure that it can learn on SDXL, which has two text encoders.
    ///
    /// # Errors
    /// When it cannot.
    fn check_sdxl(&self, config: &TrainConfig) -> Result<()> {
        ensure!(
            !config.phases.values().any(|phase| phase.trains.contains_key(&Group::TextEncoder)),
            "training the text encoder (trains.text_encoder) is for Stable Diffusion 1.x and 2.x, but this model is SDXL"
        );
        Ok(())
    }

    /// Adds to a pipeline what is to be learned, as it is before the first step: the placeholder token, and the
    /// configuration's adapter.
    ///
    /// # Errors
    /// When the configuration does not fit the model.
    fn install(&self, pipeline: &mut Pipeline, config: &TrainConfig) -> Result<Learned> {
        Learned::start(pipeline, config)
    }

    /// Makes sure that it can learn from a prompt of the subject, with the class noun filled in, as [`Method::install`] has left the
    /// pipeline.
    ///
    /// # Errors
    /// Says what the prompt lacks.
    fn check_prompt(&self, _pipeline: &Pipeline, _config: &TrainConfig, _prompt: &str) -> Result<()> {
        Ok(())
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

    /// What is drawn at random for a batch of so many of the subject's samples, for a U-Net of so many cross-attention layers; all
    /// of it derives from the seed, which no other batch has. The samples are its last dimension. Mostly nothing.
    fn draw(&self, _seed: u64, _layers: usize, _samples: usize) -> Option<Tensor> {
        None
    }

    /// The keys and values of a batch's prompts, one for all samples or one for each, in the dtype to compute in.
    ///
    /// # Errors
    /// What the models refuse.
    fn text(&self, step: &Step<'_>, dtype: Kind) -> Result<KvCache> {
        step.project(dtype)
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
    /// The batch's prompts, encoded: one for all samples or one for each; with prior preservation the class noun's follow, as many.
    pub prompt_embeds: &'a PromptEmbeds,
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
        let text = self.method.text(self, noisy.kind())?;
        self.pipeline.unet.forward_cached(&noisy, &self.batch.timesteps, &text, observer)
    }

    /// The keys and values of the prompts: of one for all samples, or of one for each.
    ///
    /// # Errors
    /// What the U-Net refuses.
    pub fn project(&self, dtype: Kind) -> Result<KvCache> {
        let (size, prompts) = (self.batch.latents.size()[0], self.prompt_embeds.prompts());
        let embeds = self.prompt_embeds.map(|tensor| {
            let tensor = tensor.to_kind(dtype);
            if prompts == 1 { tensor } else { tensor.repeat_interleave_self_int(size / prompts, 0, None) }
        });
        self.pipeline.project(&embeds, &self.batch.sizes)
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
