//! What a user can ask for.

use anyhow::{Result, bail, ensure};
use scheduler::SchedulerKind;
use serde::Serialize;
use tch::Tensor;

/// One picture.
#[derive(Debug)]
pub struct Request {
    /// What it should show; the empty prompt is valid.
    pub prompt: String,
    /// What guidance leads away from; mostly empty.
    pub negative_prompt: String,
    /// The seed of all its noise.
    pub seed: u64,
    /// The initial noise [channels, height/8, width/8] in place of the seed's, standard normal as diffusers' `latents`.
    pub latents: Option<Tensor>,
}

impl Request {
    /// A picture of `prompt` from the noise of `seed`.
    pub fn new(prompt: impl Into<String>, seed: u64) -> Self {
        Self { prompt: prompt.into(), negative_prompt: String::new(), seed, latents: None }
    }

    /// The picture's parameters in the words that other programs read from PNG files. `scheduler` is a class name.
    pub fn describe(&self, settings: &Settings, scheduler: &str, model: &str) -> String {
        let negative = match self.negative_prompt.as_str() {
            "" => String::new(),
            negative => format!("\nNegative prompt: {negative}"),
        };
        format!(
            "{}{negative}\nSteps: {}, Sampler: {scheduler}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {model}",
            self.prompt, settings.steps, settings.guidance_scale, self.seed, settings.width, settings.height
        )
    }

    /// Checks the initial latents: they must be finite and have this `shape`.
    pub(crate) fn validate(&self, shape: [i64; 3]) -> Result<()> {
        let Some(latents) = &self.latents else { return Ok(()) };
        if latents.size() != shape {
            bail!("the initial latents have shape {:?}, but pictures of this size need {shape:?}", latents.size());
        }
        ensure!(
            libtorch::catch(|| latents.isfinite().all().int64_value(&[]) == 1)?,
            "the initial latents of the prompt {:?} (seed {}) have values that are not finite",
            self.prompt,
            self.seed
        );
        Ok(())
    }
}

/// What the pictures of a batch have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Denoising steps; 50 in the paper's evaluation.
    pub steps: usize,
    /// How strongly the prompt counts (classifier-free guidance, arXiv 2207.12598); at most 1 means not at all, at
    /// half the cost.
    pub guidance_scale: f64,
    /// Height of the pictures in pixels, a multiple of 8 (of the VAE's factor).
    pub height: i64,
    /// Width of the pictures in pixels.
    pub width: i64,
    /// Another scheduler than the model's own.
    #[serde(serialize_with = "scheduler_name")]
    pub scheduler: Option<SchedulerKind>,
}

impl Settings {
    /// Checks what does not depend on the scheduler; `factor` is the number of pixels to a latent.
    pub(crate) fn validate(&self, factor: i64) -> Result<()> {
        for (name, value) in [("height", self.height), ("width", self.width)] {
            ensure!(
                value > 0 && value % factor == 0,
                "{name} {value} is not a positive multiple of {factor}; the nearest that is one is {}",
                ((value + factor / 2) / factor * factor).max(factor)
            );
        }
        ensure!(self.guidance_scale.is_finite(), "guidance_scale is {}, but must be a number", self.guidance_scale);
        Ok(())
    }

    /// Whether the U-Net also has to see the negative prompt.
    pub(crate) fn guides(&self) -> bool {
        self.guidance_scale > 1.0
    }
}

fn scheduler_name<S: serde::Serializer>(kind: &Option<SchedulerKind>, to: S) -> Result<S::Ok, S::Error> {
    kind.map(SchedulerKind::class_name).serialize(to)
}

/// A denoising step that has been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Steps done so far, counted from 1.
    pub done: usize,
    /// Steps in all, which may be more than were asked for (PNDM).
    pub total: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latents_of_another_size_are_refused() {
        let request = Request { latents: Some(libtorch::random::normal(0, &[4, 8, 8])), ..Request::new("", 0) };
        assert!(request.validate([4, 8, 8]).is_ok());
        let error = request.validate([4, 16, 16]).unwrap_err().to_string();
        assert!(error.contains("[4, 8, 8]") && error.contains("[4, 16, 16]"), "{error}");
    }
}
