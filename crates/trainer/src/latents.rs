//! Augmented crops to the latents that the U-Net sees.

use anyhow::Result;
use runs::TrainConfig;
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};
use vae::{AutoencoderKl, Posterior, Tiling};
use weights::{Init, Parameters, Problem, Source};

/// The pipeline's VAE under a handle of its own, which another thread may hold; the weights are the same memory, or copies
/// where it computes in another dtype, so that they are not converted for each crop.
#[derive(Debug)]
pub struct LatentEncoder {
    vae: AutoencoderKl,
    kind: Kind,
    device: Device,
}

impl LatentEncoder {
    /// Computes in the configuration's `dtype`.
    ///
    /// # Errors
    /// For lack of memory.
    pub fn new(pipeline: &Pipeline, config: &TrainConfig) -> Result<Self> {
        let shared = Shared(&pipeline.parameters.vae);
        let (kind, device) = (libtorch::kind(config.dtype), pipeline.placement().1);
        let (vae, _) = weights::build(&shared, (kind, device), |vs| AutoencoderKl::new(vs, pipeline.vae.config()))?;
        Ok(Self { vae, kind, device })
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The moments [crops, 8, h, w] of the posteriors of images [crops, 3, 8h, 8w] in [-1, 1]. Each is encoded alone, so
    /// that its moments do not depend on what shares its batch.
    ///
    /// # Errors
    /// What the VAE refuses, or for lack of memory.
    pub fn moments(&self, images: &Tensor) -> Result<Tensor> {
        let one_by_one = Tiling { slice_batch: true, ..Tiling::NONE };
        libtorch::catch(|| {
            let images = libtorch::upload(images, self.device).to_kind(self.kind);
            tch::no_grad(|| Ok(self.vae.encode_tiled(&images, &one_by_one)?.moments()))
        })?
    }

    /// The latents [crops, 4, h, w] of moments and standard normal noise: sampled, scaled, in f32.
    ///
    /// # Errors
    /// When the noise has another shape.
    pub fn sample(&self, moments: &Tensor, noise: &Tensor) -> Result<Tensor> {
        libtorch::catch(|| {
            tch::no_grad(|| {
                let latents = Posterior::from_moments(moments)?.sample(noise)?;
                Ok(self.vae.scale_latents(&latents).to_kind(Kind::Float))
            })
        })?
    }
}

/// Parameters as a source of themselves, without a copy where they are of the kind already.
struct Shared<'a>(&'a Parameters);

impl Source for Shared<'_> {
    fn describe(&self) -> String {
        "the pipeline's parameters".to_owned()
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.to_owned()).collect()
    }

    fn contains(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    fn fetch(&self, name: &str, _: &[i64], _: Init, (kind, _): (Kind, Device)) -> Result<Tensor, Problem> {
        // Detached, so that no other thread's handle has the same flags.
        let parameter = self.0.get(name).ok_or(Problem::Missing)?;
        libtorch::catch(|| parameter.detach().to_kind(kind)).map_err(Problem::Copy)
    }
}
