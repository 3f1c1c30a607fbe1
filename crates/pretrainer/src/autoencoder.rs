//! The VAE learns to rebuild scenes.

use anyhow::Result;
use libtorch::random;
use tch::{Device, Kind, Tensor};
use vae::AutoencoderKl;
use weights::{Parameters, Source};

use crate::part::Component;
use crate::prefetch::Prefetch;
use crate::sources::{Sources, to_tensor};
use crate::{Recipe, shapes};

/// The weight of the latents' divergence from normal numbers, in nats a picture, beside the mean absolute error in [-1, 1].
const KL_WEIGHT: f64 = 5e-7;

pub(crate) struct Autoencoder {
    model: AutoencoderKl,
    parameters: Parameters,
    scenes: Prefetch,
    seed: u64,
    device: Device,
}

impl Autoencoder {
    pub(crate) fn new(source: &dyn Source, recipe: &Recipe, sources: &Sources, device: Device) -> Result<Self> {
        let config = serde_json::from_value(shapes::vae(1.0))?;
        let (model, parameters) =
            weights::build(source, (Kind::Float, device), |vs| AutoencoderKl::new(vs, &config))?;
        let seed = random::derive(recipe.seed, "vae", 0);
        Ok(Self { model, parameters, scenes: Prefetch::new(sources, seed, recipe.batch_size), seed, device })
    }
}

impl Component for Autoencoder {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn losses(&mut self, step: u64) -> Result<Vec<(&'static str, Tensor)>> {
        let (pictures, _) = self.scenes.batch(step)?;
        let images = to_tensor(&pictures).to_device(self.device);
        let posterior = self.model.encode(&images)?;
        let noise = random::normal(random::derive(self.seed, "posterior", step), &posterior.mean().size());
        let rebuilt = self.model.decode(&posterior.sample(&noise)?)?;
        let error = (&rebuilt - &images).abs().mean(Kind::Float);
        let kl = posterior.kl().mean(Kind::Float);
        let total = &error + &kl * KL_WEIGHT;
        Ok(vec![("loss", total), ("absolute_error_loss", error), ("kl_loss", kl)])
    }
}
