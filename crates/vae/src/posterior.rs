//! The distribution of an image's latents.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Independent normal distributions, one for each element of the latents.
///
/// All tensors have the shape [batch, latent channels, height, width] and the dtype that was computed in. Latents are
/// *unscaled* here; see [`crate::AutoencoderKl::scale_latents`].
#[derive(Debug)]
pub struct Posterior {
    mean: Tensor,
    logvar: Tensor,
}

impl Posterior {
    /// From moments [batch, 2 · latent channels, height, width], as the encoder puts them out: means, then logarithms
    /// of variances, which are clamped to [-30, 20].
    ///
    /// # Errors
    /// When the moments have another number of dimensions or an odd number of channels.
    pub fn from_moments(moments: &Tensor) -> Result<Self> {
        let shape = moments.size();
        ensure!(
            shape.len() == 4 && shape[1] % 2 == 0,
            "moments have shape {shape:?}, but must have [batch, 2 x latent channels, height, width]"
        );
        let channels = shape[1] / 2;
        let mean = moments.narrow(1, 0, channels);
        let logvar = moments.narrow(1, channels, channels).clamp(-30.0, 20.0);
        Ok(Self { mean, logvar })
    }

    /// Means and clamped logarithms of variances as one tensor, from which [`Posterior::from_moments`] makes the same
    /// distribution again.
    pub fn moments(&self) -> Tensor {
        Tensor::cat(&[&self.mean, &self.logvar], 1)
    }

    /// The means.
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// The logarithms of the variances, in [-30, 20].
    pub fn logvar(&self) -> &Tensor {
        &self.logvar
    }

    /// The standard deviations.
    pub fn std(&self) -> Tensor {
        (&self.logvar * 0.5).exp()
    }

    /// The most probable latents, which are the means.
    pub fn mode(&self) -> Tensor {
        self.mean.shallow_clone()
    }

    /// Latents drawn with standard normal `noise` of their shape: mean + std · noise.
    ///
    /// The noise is brought to the dtype and device of the distribution.
    ///
    /// # Errors
    /// When `noise` has another shape.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        let (shape, expected) = (noise.size(), self.mean.size());
        ensure!(
            shape == expected,
            "the noise has shape {shape:?}, but the latents have {expected:?}; draw it like them"
        );
        Ok(&self.mean + self.std() * noise.to_device(self.mean.device()).to_kind(self.mean.kind()))
    }

    /// The Kullback-Leibler divergence from the standard normal distribution, summed over each image's latents, in
    /// nats: ½ Σ (mean² + var − 1 − ln var), of shape \[batch\].
    pub fn kl(&self) -> Tensor {
        let terms = self.mean.square() + self.logvar.exp() - 1.0 - &self.logvar;
        terms.sum_dim_intlist([1i64, 2, 3].as_slice(), false, None::<Kind>) * 0.5
    }
}
