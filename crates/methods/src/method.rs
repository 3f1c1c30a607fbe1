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

    /// Adds to a pipeline what is to be learned, as it is before the first step: the placeholder token.
    ///
    /// # Errors
    /// When the configuration does not fit the model.
    fn install(&self, pipeline: &mut Pipeline, config: &TrainConfig) -> Result<Learned> {
        Learned::start(pipeline, config)
    }

    /// Changes parameters before each step, as a method with a constraint does.
    ///
    /// # Errors
    /// What LibTorch refuses.
    fn before_step(&self, learned: &Learned) -> Result<()> {
        let _ = learned;
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
