//! What a method is.

use std::fmt::Debug;

use anyhow::Result;
use runs::TrainConfig;
use sampling::Pipeline;
use tch::Tensor;
use unet::{KvCache, UNet};

use crate::{Learned, LossTerm, Step};

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
    fn settle(&self, pipeline: &mut Pipeline, learned: Learned) -> Result<()> {
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
