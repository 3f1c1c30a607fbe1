//! Models that are trained from nothing.

use libtorch::random;
use tch::{Device, Kind, Tensor};

use crate::scope::{Init, Problem, Source};

/// A source of freshly initialised parameters: each depends on the seed and its own name alone.
#[derive(Debug, Clone, Copy)]
pub struct Random {
    /// The seed of all parameters.
    pub seed: u64,
}

impl Source for Random {
    fn describe(&self) -> String {
        format!("a random initialisation with seed {}", self.seed)
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn contains(&self, _: &str) -> bool {
        false
    }

    fn fetch(&self, name: &str, shape: &[i64], init: Init, to: (Kind, Device)) -> Result<Tensor, Problem> {
        let seed = random::derive(self.seed, name, 0);
        let new = || match init {
            Init::Const(value) => Tensor::full(shape, value, (Kind::Float, Device::Cpu)),
            Init::Normal(std) => random::normal(seed, shape) * std,
            Init::FanIn(fan_in) => {
                let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
                random::uniform(seed, shape) * (2.0 * bound) - bound
            }
        };
        libtorch::catch(|| new().to_device_(to.1, to.0, false, false)).map_err(Problem::Copy)
    }
}
