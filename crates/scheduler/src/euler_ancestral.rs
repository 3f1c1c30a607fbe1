//! Euler's method with fresh noise in every step (Crowson, k-diffusion).

use tch::Tensor;

use crate::sigmas::SigmaPath;
use crate::step::Inputs;
use crate::{Error, FinalSigmas, Scheduler, SchedulerConfig};

/// Each step follows dx/dσ to below the next σ and makes up for it with noise.
#[derive(Debug)]
pub(crate) struct EulerAncestral {
    path: SigmaPath,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    change: f64,
    noise: f64,
}

impl EulerAncestral {
    pub(crate) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, Error> {
        let path = SigmaPath::new(
            &SchedulerConfig { use_karras_sigmas: None, final_sigmas_type: FinalSigmas::Zero, ..config.clone() },
            steps,
        )?;
        let steps = path.steps().map(|(from, to)| Step::new(from, to)).collect();
        Ok(Self { path, steps })
    }
}

impl Step {
    fn new(from: f32, to: f32) -> Self {
        let up = (to.powi(2) * (from.powi(2) - to.powi(2)) / from.powi(2)).sqrt();
        let down = (to.powi(2) - up.powi(2)).sqrt();
        Self { change: (down - from).into(), noise: up.into() }
    }
}

impl Scheduler for EulerAncestral {
    fn timesteps(&self) -> &[f32] {
        &self.path.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.path.init_noise_sigma()
    }

    fn scale_model_input(&self, index: usize, sample: &Tensor) -> Tensor {
        self.path.scale_model_input(index, sample)
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
        let mut next = &given.sample + self.path.derivative(index, &given.output, &given.sample) * step.change;
        if step.noise > 0.0 {
            next += given.noise(noise)? * step.noise;
        }
        Ok(given.finish(&next))
    }
}
