//! What a user can ask for.

use std::borrow::Cow;

use anyhow::{Result, bail, ensure};
pub use options::GenerationSettings as Settings;
use tch::Tensor;

/// One image.
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
    /// An image of `prompt` from the noise of `seed`.
    pub fn new(prompt: impl Into<String>, seed: u64) -> Self {
        Self { prompt: prompt.into(), negative_prompt: String::new(), seed, latents: None }
    }

    /// The image's parameters as A1111's web UI writes them into PNG files, and as it and other programs read them: the
    /// prompt, the negative prompt, a line of `Key: value` pairs. `scheduler` is a class name.
    pub fn describe(&self, settings: &Settings, scheduler: &str, model: &str) -> String {
        let negative = match self.negative_prompt.as_str() {
            "" => String::new(),
            negative => format!("\nNegative prompt: {negative}"),
        };
        let Settings { steps, guidance_scale, width, height, .. } = settings;
        let (scheduler, model) = (quoted(scheduler), quoted(model));
        let model = if model.is_empty() { String::new() } else { format!(", Model: {model}") };
        let eta = settings.eta.map(|eta| format!(", Eta: {eta}")).unwrap_or_default();
        format!(
            "{}{negative}\nSteps: {steps}, Sampler: {scheduler}, CFG scale: {guidance_scale}, Seed: {}, Size: \
             {width}x{height}{model}{eta}",
            self.prompt, self.seed
        )
    }

    /// Checks the initial latents: they must be finite and have this `shape`.
    pub(crate) fn validate(&self, shape: [i64; 3]) -> Result<()> {
        let Some(latents) = &self.latents else { return Ok(()) };
        if latents.size() != shape {
            bail!("the initial latents have shape {:?}, but images of this size need {shape:?}", latents.size());
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

/// A value among the parameters in a PNG file: a JSON string where it would else not be read back as it is, as A1111's web
/// UI has it.
pub fn quoted(value: &str) -> Cow<'_, str> {
    let plain = !value.contains([',', ':', '\n']) && !value.starts_with('"') && value.trim() == value;
    if plain { Cow::Borrowed(value) } else { Cow::Owned(serde_json::Value::from(value).to_string()) }
}

/// Checks what does not depend on the scheduler; `factor` is the number of pixels to a latent.
pub(crate) fn check_settings(settings: &Settings, factor: i64) -> Result<()> {
    for (name, value) in [("height", settings.height), ("width", settings.width)] {
        // The first message also tells a size that would fit.
        ensure!(
            value > MAX_SIDE || (value > 0 && value % factor == 0),
            "{name} {value} is not a positive multiple of {factor}; the nearest that is one is {}",
            (value.saturating_add(factor / 2) / factor * factor).max(factor)
        );
        limits::within(name, value, 1..=MAX_SIDE, "memory and time grow with its square and more")?;
    }
    check_guidance_scale(settings.guidance_scale)
}

/// Whether the U-Net also has to see the negative prompt.
pub(crate) fn guides(settings: &Settings) -> bool {
    settings.guidance_scale > 1.0
}

/// The side of an image in pixels; the models are trained with 512 or 768.
const MAX_SIDE: i64 = 8192;

/// Checks a `guidance_scale`.
///
/// # Errors
/// When it is no number, or so large that it leaves nothing of an image.
pub fn check_guidance_scale(scale: f64) -> Result<()> {
    // Beyond, the numbers of the image overflow.
    Ok(limits::within("guidance_scale", scale, -1000.0..=1000.0, "more leaves nothing of the image")?)
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
    use std::collections::BTreeMap;

    use regex::Regex;

    use super::*;

    /// What A1111's web UI makes of the text (parse_generation_parameters in modules/infotext_utils.py): the prompt, the
    /// negative prompt, the values.
    fn read_by_a1111(text: &str) -> (String, String, BTreeMap<String, String>) {
        let pair = Regex::new(r#"\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)"#).unwrap();
        let mut lines: Vec<&str> = text.trim().split('\n').collect();
        let mut last = lines.pop().unwrap();
        if pair.captures_iter(last).count() < 3 {
            lines.push(last);
            last = "";
        }
        let (mut prompts, mut negative) = ([Vec::new(), Vec::new()], 0);
        for line in lines.into_iter().map(str::trim) {
            let rest = line.strip_prefix("Negative prompt:");
            negative = if rest.is_some() { 1 } else { negative };
            prompts[negative].push(rest.unwrap_or(line).trim());
        }
        let values = pair.captures_iter(last).map(|pair| {
            let value = &pair[2];
            let json = value.starts_with('"') && value.ends_with('"');
            (pair[1].to_owned(), if json { serde_json::from_str(value).unwrap() } else { value.to_owned() })
        });
        let [prompt, negative] = prompts.map(|lines| lines.join("\n"));
        (prompt, negative, values.collect())
    }

    #[test]
    fn other_programs_read_what_was_asked_for_whatever_is_in_it() {
        let settings = Settings { steps: 25, guidance_scale: 7.5, height: 64, width: 48, scheduler: None, eta: None };
        let texts = [
            "a cat",
            "a [V] dog, wearing a \"hat\": red, 8k",
            "Steps: 3, Sampler: none, Seed: 4, Model: other",
            "two\nlines, Steps: 1",
            "Kätzchen 🐱 \\ /",
        ];
        let models = [
            "tiny-sd21",
            "a, b",
            "C: d",
            "\"quoted\"",
            "x \"y\" z",
            "back\\slash, \\\"",
            "two\nlines",
            " spaces ",
            "ä🐱,",
        ];
        for prompt in texts {
            for negative in texts.iter().chain(&[""]) {
                for model in models {
                    let request = Request { negative_prompt: (*negative).to_owned(), ..Request::new(prompt, 7) };
                    let text = request.describe(&settings, "PNDMScheduler", model);
                    let (read, read_negative, values) = read_by_a1111(&text);
                    assert_eq!((read.as_str(), read_negative.as_str()), (prompt, *negative), "{text}");
                    let expected = [
                        ("CFG scale", "7.5"),
                        ("Model", model),
                        ("Sampler", "PNDMScheduler"),
                        ("Seed", "7"),
                        ("Size", "48x64"),
                        ("Steps", "25"),
                    ];
                    assert_eq!(
                        values,
                        expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                        "{text}"
                    );
                }
            }
        }
        // Nothing is quoted without need, and nothing is said of a model that has no name.
        let text = Request::new("", 1).describe(&settings, "DDIMScheduler", "");
        assert_eq!(text, "\nSteps: 25, Sampler: DDIMScheduler, CFG scale: 7.5, Seed: 1, Size: 48x64");
        let text = Request::new("", 1).describe(&Settings { eta: Some(0.5), ..settings }, "DDIMScheduler", "m");
        assert!(text.ends_with(", Model: m, Eta: 0.5"), "{text}");
    }

    #[test]
    fn sizes_and_guidance_that_nobody_can_draw_are_refused() {
        let draws = Settings { steps: 1, guidance_scale: 7.5, height: 512, width: 64, scheduler: None, eta: None };
        check_settings(&draws, 8).unwrap();
        for side in [i64::MIN, -8, 0, 4, 8200, i64::MAX - 7, i64::MAX] {
            let error = check_settings(&Settings { height: side, ..draws.clone() }, 8).unwrap_err().to_string();
            assert!(error.starts_with("height") && error.contains(&side.to_string()), "{error}");
        }
        for scale in [f64::NAN, f64::INFINITY, f64::MIN, 1e300] {
            let error =
                check_settings(&Settings { guidance_scale: scale, ..draws.clone() }, 8).unwrap_err().to_string();
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
