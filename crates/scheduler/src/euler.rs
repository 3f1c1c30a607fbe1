//! Euler's method (Karras et al. 2022, algorithm 1 without churn).

use tch::Tensor;

use crate::config::unsupported;
use crate::sigmas::SigmaPath;
use crate::step::Inputs;
use crate::{Error, Scheduler, SchedulerConfig, SchedulerKind};

/// Each step follows dx/dσ to the next σ.
#[derive(Debug)]
pub(crate) struct Euler {
    path: SigmaPath,
    /// The change of σ in every step.
    changes: Vec<f64>,
}

impl Euler {
    pub(crate) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, Error> {
        let kind = SchedulerKind::Euler;
        config.refuse_exotic_sigmas(kind)?;
        if config.interpolation_type != "linear" {
            return Err(unsupported(kind, "interpolation_type", &config.interpolation_type, "linear"));
        }
        if config.timestep_type != "discrete" {
            return Err(unsupported(kind, "timestep_type", &config.timestep_type, "discrete"));
        }
        let path = SigmaPath::new(config, steps)?;
        let changes = path.steps().map(|(from, to)| f64::from(to - from)).collect();
        Ok(Self { path, changes })
    }
}

impl Scheduler for Euler {
    fn timesteps(&self) -> &[f32] {
        &self.path.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.path.init_noise_sigma()
    }

    fn scale_model_input(&self, index: usize, sample: &Tensor) -> Tensor {
        self.path.scale_model_input(index, sample)
    }

    fn step(
        &mut self,
        index: usize,
        model_output: &Tensor,
        sample: &Tensor,
        _noise: Option<&Tensor>,
    ) -> Result<Tensor, Error> {
        let given = Inputs::new(index, self.changes.len(), model_output, sample)?;
        let derivative = self.path.derivative(index, &given.output, &given.sample);
        Ok(given.finish(&(&given.sample + derivative * self.changes[index])))
    }
}
