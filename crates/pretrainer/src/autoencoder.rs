//! The VAE's training: to rebuild scenes.

use anyhow::Result;
use libtorch::random;
use tch::{Device, Kind, Tensor};
use vae::{AutoencoderKl, Posterior};
use weights::{Parameters, Source};

use crate::prefetch::Prefetch;
use crate::sources::{Sources, to_tensor};
use crate::training::Component;
use crate::{Config, shapes};

/// The weight of the latents' divergence from normal numbers, in nats a image, beside the mean absolute error in [-1, 1].
const KL_WEIGHT: f64 = 4e-7;
/// The logarithm of the posterior's first variance.
const FIRST_LOGVAR: f64 = -6.0;
/// The side of the crops of scenes in pixels: a quarter of the area, so more scenes in the same time.
const CROP: i64 = 64;

pub(crate) struct Autoencoder {
    model: AutoencoderKl,
    parameters: Parameters,
    scenes: Prefetch,
    seed: u64,
    device: Device,
    kind: Kind,
}

impl Autoencoder {
    pub(crate) fn new(source: &dyn Source, config: &Config, sources: &Sources, device: Device) -> Result<Self> {
        let shape: vae::Config = serde_json::from_value(shapes::vae(1.0))?;
        let (model, parameters) = weights::build(source, (Kind::Float, device), |vs| AutoencoderKl::new(vs, &shape))?;
        if source.names().is_empty() {
            quiet(&parameters, shape.latent_channels);
        }
        let seed = random::derive(config.seed, "vae", 0);
        Ok(Self {
            model,
            parameters,
            scenes: Prefetch::new(sources, seed, config.batch_size),
            seed,
            device,
            kind: config.dtype.kind(),
        })
    }
}

impl Component for Autoencoder {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn losses(&mut self, step: u64) -> Result<Vec<(&'static str, Tensor)>> {
        let (images, _) = self.scenes.batch(step)?;
        let [top, left] = ["top", "left"].map(|side| {
            let free = i64::from(shapes::IMAGE_SIZE) - CROP;
            random::derive(self.seed, side, step).cast_signed().rem_euclid(free + 1)
        });
        let images = to_tensor(&images).narrow(2, top, CROP).narrow(3, left, CROP).contiguous().to_device(self.device);
        let moments = self.model.encode(&images.to_kind(self.kind))?.moments();
        let posterior = Posterior::from_moments(&moments.to_kind(Kind::Float))?;
        let noise = random::normal(random::derive(self.seed, "posterior", step), &posterior.mean().size());
        let rebuilt = self.model.decode(&posterior.sample(&noise)?.to_kind(self.kind))?.to_kind(Kind::Float);
        let difference = &rebuilt - &images;
        let (squared, absolute) = (difference.square().mean(Kind::Float), difference.abs().mean(Kind::Float));
        let kl = posterior.kl().mean(Kind::Float);
        // Brightness is learned long before colour, which has less variance: so the colour differences count once more.
        let chroma = (difference.narrow(1, 0, 2) - difference.narrow(1, 1, 2)).square().mean(Kind::Float);
        let total = &squared + &chroma + &absolute * 0.1 + &kl * KL_WEIGHT;
        Ok(vec![("loss", total), ("squared_error_loss", squared), ("absolute_error_loss", absolute), ("kl_loss", kl)])
    }
}

/// Lets the posterior of a new model begin with little noise. At a standard deviation of 1, where it would begin, the
/// decoder learns to ignore the channels that the encoder does not use yet, and so they are never used.
fn quiet(parameters: &Parameters, latent_channels: i64) {
    if let Some(bias) = parameters.get("quant_conv.bias") {
        let _ = tch::no_grad(|| bias.narrow(0, latent_channels, latent_channels).fill_(FIRST_LOGVAR));
    }
}
