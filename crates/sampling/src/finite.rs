//! Images that cannot be generated, since numbers on the way to them are not finite.

use std::fmt;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::Request;

/// An image whose numbers are NaN or infinite, which 8 bits would show as black or white.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image of the prompt {prompt:?} (seed {seed}) cannot be generated: {origin}; {advice}")]
pub struct NotFinite {
    /// The image's prompt.
    pub prompt: String,
    /// The image's seed.
    pub seed: u64,
    /// Where its numbers stopped being finite.
    pub origin: Origin,
    advice: String,
}

/// Where numbers stopped being finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the text encoder.
    TextEncoder,
    /// In the U-Net or the scheduler.
    Denoising {
        /// The denoising step, counted from 1.
        step: usize,
        /// Steps in all.
        total: usize,
    },
    /// In the VAE's decoder.
    Decoder,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TextEncoder => f.write_str("the text encoder's hidden states are not finite"),
            Self::Denoising { step, total } => {
                write!(f, "its latents are no longer finite from denoising step {step} of {total} on")
            }
            Self::Decoder => f.write_str("its latents are finite, but not what the VAE decodes them to"),
        }
    }
}

/// Watches a batch on its way. Nobody waits for a GPU before [`Watch::finish`]; on a CPU the first number that is not
/// finite ends the work.
pub(crate) struct Watch<'a> {
    requests: &'a [Request],
    dtype: Kind,
    guides: bool,
    /// The largest magnitudes of what was seen, f32 [batch] each.
    seen: Vec<(Origin, Tensor)>,
}

impl<'a> Watch<'a> {
    /// For computations in `dtype`, with or without guidance.
    pub(crate) fn new(requests: &'a [Request], dtype: Kind, guides: bool) -> Self {
        Self { requests, dtype, guides, seen: Vec::new() }
    }

    /// Looks at numbers [n · batch, ...], where the images of the batch come n times one after the other.
    pub(crate) fn see(&mut self, origin: Origin, numbers: &Tensor) -> Result<()> {
        let of_each =
            numbers.flatten(1, -1).reshape([-1, self.requests.len() as i64, numbers.size()[1..].iter().product()]);
        // One kernel, and NaN is kept.
        let largest = of_each.norm_scalaropt_dim_dtype(f64::INFINITY, [0i64, 2].as_slice(), false, Kind::Float);
        self.seen.push((origin, largest));
        if numbers.device() == Device::Cpu { self.finish() } else { Ok(()) }
    }

    /// Waits for all that was seen.
    ///
    /// # Errors
    /// A [`NotFinite`] of the first that was not finite.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let seen = std::mem::take(&mut self.seen);
        if seen.is_empty() {
            return Ok(());
        }
        let largest: Vec<&Tensor> = seen.iter().map(|(_, largest)| largest).collect();
        let largest = Vec::<f32>::try_from(Tensor::stack(&largest, 0).reshape([-1]))?;
        let batch = self.requests.len();
        match largest.iter().position(|largest| !largest.is_finite()) {
            Some(index) => Err(self.not_finite(seen[index / batch].0, &self.requests[index % batch]).into()),
            None => Ok(()),
        }
    }

    fn not_finite(&self, origin: Origin, request: &Request) -> NotFinite {
        let dtype = (self.dtype == Kind::Half).then_some("compute in bf16 or fp32 instead of fp16 (--dtype)");
        let guidance = matches!(origin, Origin::Denoising { .. }) && self.guides;
        let guidance = guidance.then_some("lower guidance_scale (--guidance-scale)");
        let weights = Some("check the model's weights (generate --check)");
        let advice: Vec<&str> = [dtype, guidance, weights].into_iter().flatten().collect();
        NotFinite { prompt: request.prompt.clone(), seed: request.seed, origin, advice: advice.join(", or ") }
    }
}
