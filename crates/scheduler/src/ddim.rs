//! DDIM (Song et al. 2020).

use tch::Tensor;

use crate::config::unsupported;
use crate::prediction::{Level, Prediction};
use crate::step::Inputs;
use crate::{Error, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, TimestepSpacing};

/// Each step predicts the clean sample and goes back to the noise level before, eq. 12; `eta` is η of eq. 16.
#[derive(Debug)]
pub(crate) struct Ddim {
    timesteps: Vec<f32>,
    steps: Vec<Step>,
    prediction_type: PredictionType,
    clip: Option<f64>,
}

#[derive(Debug)]
struct Step {
    from: Level,
    /// √ᾱ of where the step goes.
    alpha: f64,
    /// How much of the predicted noise is left there.
    direction: f64,
    /// The standard deviation of the noise that is added.
    noise: f64,
}

impl Ddim {
    pub(crate) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, Error> {
        config.refuse_thresholding(SchedulerKind::Ddim)?;
        if !(0.0..=1.0).contains(&config.eta) {
            return Err(unsupported(SchedulerKind::Ddim, "eta", &config.eta, "a value from 0 to 1"));
        }
        let schedule = NoiseSchedule::new(config)?;
        let table = schedule.alphas_cumprod();
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Leading);
        let timesteps = spacing.integers(table.len(), steps, config.steps_offset)?;
        let past_the_last = if config.set_alpha_to_one.unwrap_or(true) { 1.0 } else { table[0] };
        let step = |&t: &usize| {
            let from = table[t];
            let to = t.checked_sub(table.len() / steps).map_or(past_the_last, |t| table[t]);
            Step::new(from, to, config.eta as f32)
        };
        let scheduler = Self {
            steps: timesteps.iter().map(step).collect(),
            timesteps: timesteps.iter().map(|&t| t as f32).collect(),
            prediction_type: config.prediction_type,
            clip: config.clip_sample.then_some(config.clip_sample_range),
        };
        scheduler
            .prediction_type
            .refuse_no_signal(SchedulerKind::Ddim, scheduler.steps.iter().map(|step| step.from))?;
        Ok(scheduler)
    }
}

impl Step {
    /// From ᾱ `from` to ᾱ `to`.
    fn new(from: f32, to: f32, eta: f32) -> Self {
        let variance = ((1.0 - to) / (1.0 - from)) * (1.0 - from / to);
        let noise = eta * variance.sqrt();
        let direction = (1.0 - to - noise * noise).sqrt();
        Self { from: Level::new(from), alpha: to.sqrt().into(), direction: direction.into(), noise: noise.into() }
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn needs_noise(&self, index: usize) -> bool {
        self.steps.get(index).is_some_and(|step| step.noise > 0.0)
    }

    fn step(
        &mut self,
        index: usize,
        model_output: &Tensor,
        sample: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor, Error> {
        let given = Inputs::new(index, self.steps.len(), model_output, sample)?;
        let step = &self.steps[index];
        let epsilon = self.prediction_type.to_epsilon(&given.output, &given.sample, step.from);
        let mut x0 = self.prediction_type.to_x0(&given.output, &given.sample, step.from);
        if let Some(range) = self.clip {
            x0 = x0.clamp(-range, range);
        }
        let mut previous = x0 * step.alpha + epsilon * step.direction;
        if self.needs_noise(index) {
            previous += given.noise(noise)? * step.noise;
        }
        Ok(given.finish(&previous))
    }
}
