//! The U-Net's training: to take noise out of latents.

use std::path::Path;

use anyhow::{Context, Result};
use clip::ClipTextModel;
use libtorch::random;
use scheduler::{ForwardProcess, SchedulerConfig};
use tch::{Device, Kind, Tensor};
use unet::UNet;
use vae::{AutoencoderKl, Posterior};
use weights::{Parameters, Source};

use crate::prefetch::Prefetch;
use crate::sources::{Sources, to_tensor};
use crate::training::Component;
use crate::{Config, shapes, trained};

/// How often each is seen, with ever new noise, before the next ones come: encoding a scene takes as long as half a step.
const USES: usize = 8;
/// Scenes encoded together.
const ENCODED: usize = 32;
/// The share of captions that are left empty, so that the model can be guided (Ho & Salimans 2022).
const DROPPED: f64 = 0.1;
/// min-SNR-γ (arXiv 2303.09556).
const SNR_GAMMA: f64 = 5.0;

pub(crate) struct Denoiser {
    model: UNet,
    parameters: Parameters,
    text_encoder: ClipTextModel,
    vae: AutoencoderKl,
    forward: ForwardProcess,
    scenes: Prefetch,
    chunk: Option<Chunk>,
    sources: Sources,
    batch_size: usize,
    pool: usize,
    seed: u64,
    device: Device,
    kind: Kind,
}

/// Scenes as the U-Net sees them.
struct Chunk {
    number: u64,
    moments: Tensor,
    captions: Vec<String>,
}

impl Denoiser {
    /// `run` holds the VAE and CLIP, trained.
    pub(crate) fn new(
        source: &dyn Source,
        config: &Config,
        sources: &Sources,
        run: &Path,
        device: Device,
    ) -> Result<Self> {
        let shape = serde_json::from_value(shapes::unet())?;
        let to = (Kind::Float, device);
        let (model, parameters) = weights::build(source, to, |vs| UNet::new(vs, &shape))?;
        let vae = trained::vae(run, sources, to)?;
        let text_encoder = trained::text_encoder(run, sources, to)?;
        let schedule: SchedulerConfig = serde_json::from_value(shapes::scheduler())?;
        let forward = ForwardProcess::new(&schedule, device)?;
        let seed = random::derive(config.seed, "unet", 0);
        let (scenes, batch_size) = (Prefetch::new(sources, seed, config.pool), config.batch_size);
        let sources = sources.clone();
        Ok(Self {
            model,
            parameters,
            text_encoder,
            vae,
            forward,
            scenes,
            chunk: None,
            sources,
            batch_size,
            pool: config.pool,
            seed,
            device,
            kind: config.dtype.kind(),
        })
    }

    fn steps_of_chunk(&self) -> u64 {
        (self.pool * USES / self.batch_size) as u64
    }

    fn chunk(&mut self, number: u64) -> Result<&Chunk> {
        if self.chunk.as_ref().is_none_or(|chunk| chunk.number != number) {
            let (images, captions) = self.scenes.batch(number)?;
            let moments = tch::no_grad(|| {
                let parts = images.chunks(ENCODED);
                let encode = |part| {
                    let images = to_tensor(part).to_device_(self.device, self.kind, false, false);
                    anyhow::Ok(self.vae.encode(&images)?.moments().to_kind(Kind::Float))
                };
                anyhow::Ok(Tensor::cat(&parts.map(encode).collect::<Result<Vec<_>>>()?, 0))
            })?;
            self.chunk = Some(Chunk { number, moments, captions });
        }
        self.chunk.as_ref().context("a chunk of scenes was lost")
    }
}

impl Component for Denoiser {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn losses(&mut self, step: u64) -> Result<Vec<(&'static str, Tensor)>> {
        let (seed, size, pool, device, steps) =
            (self.seed, self.batch_size, self.pool, self.device, self.steps_of_chunk());
        let draw = |purpose: &str| random::derive(seed, purpose, step);
        // Each scene of a chunk comes once before any comes again: the chunk's steps walk through permutations.
        let (number, within) = (step / steps, (step % steps) as usize);
        let (turn, first) = (within * size / pool, (within * size % pool) as i64);
        let order = random::uniform(random::derive(seed, "order", number * USES as u64 + turn as u64), &[pool as i64]);
        let chosen = order.argsort(0, false).narrow(0, first, size as i64);
        let dropped = Vec::<f32>::try_from(random::uniform(draw("dropped"), &[size as i64]))?;

        let chunk = self.chunk(number)?;
        let moments = chunk.moments.index_select(0, &chosen.to_device(device));
        let indices = Vec::<i64>::try_from(chosen)?;
        let captions: Vec<String> = indices
            .iter()
            .zip(dropped)
            .map(|(&i, u)| if f64::from(u) < DROPPED { String::new() } else { chunk.captions[i as usize].clone() })
            .collect();

        let (latents, encoder_hidden_states) = tch::no_grad(|| {
            let posterior = Posterior::from_moments(&moments)?;
            let noise = random::normal(draw("posterior"), &posterior.mean().size());
            let latents = self.vae.scale_latents(&posterior.sample(&noise)?);
            anyhow::Ok((latents, self.text_encoder.forward(&self.sources.ids(&captions)?)?))
        })?;
        let noise = random::normal(draw("noise"), &latents.size()).to_device(device);
        let timesteps = random::integers(draw("timesteps"), self.forward.num_train_timesteps(), &[size as i64]);
        let noisy = self.forward.add_noise(&latents, &noise, &timesteps)?;
        let (noisy, states) = (noisy.to_kind(self.kind), encoder_hidden_states.to_kind(self.kind));
        let predicted = self.model.forward(&noisy, &timesteps.to_device(device), &states, None)?.to_kind(Kind::Float);
        let errors = (predicted - noise).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
        let snr = self.forward.snr(&timesteps)?;
        let weights = snr.clamp_max(SNR_GAMMA) / &snr;
        let plain = errors.mean(Kind::Float).detach();
        Ok(vec![("weighted_loss", (errors * weights).mean(Kind::Float)), ("loss", plain)])
    }

    fn period(&self) -> Option<u64> {
        Some(self.steps_of_chunk())
    }
}
