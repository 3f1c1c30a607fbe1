//! DDPM, ancestral sampling (Ho et al. 2020).

use tch::Tensor;

use crate::config::unsupported;
use crate::prediction::{Level, Prediction};
use crate::step::Inputs;
use crate::{
    Error, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, TimestepSpacing, VarianceType,
};

/// Each step draws from the posterior given the predicted clean sample, eq. 6 and 7.
#[derive(Debug)]
pub(crate) struct Ddpm {
    timesteps: Vec<f32>,
    steps: Vec<Step>,
    prediction_type: PredictionType,
    clip: Option<f64>,
}

#[derive(Debug)]
struct Step {
    from: Level,
    x0: f64,
    sample: f64,
    /// The standard deviation of the noise that is added; none at timestep 0.
    noise: Option<f64>,
}

impl Ddpm {
    pub(crate) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, Error> {
        config.refuse_thresholding(SchedulerKind::Ddpm)?;
        let schedule = NoiseSchedule::new(config)?;
        let table = schedule.alphas_cumprod();
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Leading);
        let timesteps = spacing.integers(table.len(), steps, config.steps_offset)?;
        let ends = timesteps[1..].iter().map(|&t| table[t]).chain([1.0]);
        let step = |(&t, to): (&usize, f32)| Step::new(table[t], to, t > 0, config.variance_type.unwrap_or_default());
        let scheduler = Self {
            steps: timesteps.iter().zip(ends).map(step).collect::<Result<_, _>>()?,
            timesteps: timesteps.iter().map(|&t| t as f32).collect(),
            prediction_type: config.prediction_type,
            clip: config.clip_sample.then_some(config.clip_sample_range),
        };
        scheduler
            .prediction_type
            .refuse_no_signal(SchedulerKind::Ddpm, scheduler.steps.iter().map(|step| step.from))?;
        Ok(scheduler)
    }
}

impl Step {
    /// From ᾱ `from` to ᾱ `to`.
    fn new(from: f32, to: f32, noisy: bool, variance_type: VarianceType) -> Result<Self, Error> {
        let alpha = from / to;
        let beta = 1.0 - alpha;
        let variance = ((1.0 - to) / (1.0 - from) * beta).max(1e-20);
        let noise = match variance_type {
            VarianceType::FixedSmall => variance.sqrt(),
            VarianceType::FixedSmallLog => (0.5 * variance.ln()).exp(),
            VarianceType::FixedLarge => beta.sqrt(),
            VarianceType::FixedLargeLog | VarianceType::Learned | VarianceType::LearnedRange => {
                let value = format!("{variance_type:?}");
                return Err(unsupported(SchedulerKind::Ddpm, "variance_type", &value, "fixed_small or fixed_large"));
            }
        };
        Ok(Self {
            from: Level::new(from),
            x0: ((to.sqrt() * beta) / (1.0 - from)).into(),
            sample: (alpha.sqrt() * (1.0 - to) / (1.0 - from)).into(),
            noise: noisy.then_some(noise.into()),
        })
    }
}

impl Scheduler for Ddpm {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn needs_noise(&self, index: usize) -> bool {
        self.steps.get(index).is_some_and(|step| step.noise.is_some())
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
        let mut x0 = self.prediction_type.to_x0(&given.output, &given.sample, step.from);
        if let Some(range) = self.clip {
            x0 = x0.clamp(-range, range);
        }
        let mut previous = x0 * step.x0 + &given.sample * step.sample;
        if let Some(deviation) = step.noise {
            previous += given.noise(noise)? * deviation;
        }
        Ok(given.finish(&previous))
    }
}
