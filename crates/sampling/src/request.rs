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

    /// Checks the initial latents against the `shape` that they must have.
    pub(crate) fn validate(&self, shape: [i64; 3]) -> Result<()> {
        match &self.latents {
            Some(latents) if latents.size() != shape => {
                bail!("the initial latents have shape {:?}, but pictures of this size need {shape:?}", latents.size())
            }
            _ => Ok(()),
        }
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
            // The first message also tells a size that would fit.
            ensure!(
                value > MAX_SIDE || (value > 0 && value % factor == 0),
                "{name} {value} is not a positive multiple of {factor}; the nearest that is one is {}",
                (value.saturating_add(factor / 2) / factor * factor).max(factor)
            );
            limits::within(name, value, 1..=MAX_SIDE, "memory and time grow with its square and more")?;
        }
        check_guidance_scale(self.guidance_scale)
    }

    /// Whether the U-Net also has to see the negative prompt.
    pub(crate) fn guides(&self) -> bool {
        self.guidance_scale > 1.0
    }
}

fn scheduler_name<S: serde::Serializer>(kind: &Option<SchedulerKind>, to: S) -> Result<S::Ok, S::Error> {
    kind.map(SchedulerKind::class_name).serialize(to)
}

/// The side of a picture in pixels; the models are trained with 512 or 768.
const MAX_SIDE: i64 = 8192;

/// Checks a `guidance_scale`.
///
/// # Errors
/// When it is no number, or so large that it leaves nothing of a picture.
pub fn check_guidance_scale(scale: f64) -> Result<()> {
    // Beyond, the numbers of the picture overflow.
    Ok(limits::within("guidance_scale", scale, -1000.0..=1000.0, "more leaves nothing of the picture")?)
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
    fn sizes_and_guidance_that_nobody_can_draw_are_refused() {
        let draws = Settings { steps: 1, guidance_scale: 7.5, height: 512, width: 64, scheduler: None };
        draws.validate(8).unwrap();
        for side in [i64::MIN, -8, 0, 4, 8200, i64::MAX - 7, i64::MAX] {
            let error = Settings { height: side, ..draws.clone() }.validate(8).unwrap_err().to_string();
            assert!(error.starts_with("height") && error.contains(&side.to_string()), "{error}");
        }
        for scale in [f64::NAN, f64::INFINITY, f64::MIN, 1e300] {
            let error = Settings { guidance_scale: scale, ..draws.clone() }.validate(8).unwrap_err().to_string();
            assert!(error.starts_with("guidance_scale is ") && error.contains("from -1000 to 1000"), "{error}");
        }
    }

    #[test]
    fn latents_of_another_size_are_refused() {
        let request = Request { latents: Some(libtorch::random::normal(0, &[4, 8, 8])), ..Request::new("", 0) };
        assert!(request.validate([4, 8, 8]).is_ok());
        let error = request.validate([4, 16, 16]).unwrap_err().to_string();
        assert!(error.contains("[4, 8, 8]") && error.contains("[4, 16, 16]"), "{error}");
    }
}
