//! The duration of a step.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use optimizer::AdamW;
use tch::Device;
use weights::Random;

use crate::pretraining::build;
use crate::training::Component;
use crate::{Config, Part, Sources};

const WARM_UP: u64 = 2;
const MEASURED: u64 = 8;

/// Measures how long a step takes, in seconds: the mean of a few after two to warm up, with its share of what is done once
/// in many steps, such as encoding scenes. Nothing is kept.
///
/// # Errors
/// As [`Pretraining::open`](crate::Pretraining::open).
pub fn seconds_per_step(part: Part, config: &Config, sources: &Sources, run: &Path, device: Device) -> Result<f64> {
    let mut component = build(part, &Random { seed: config.seed }, config, sources, run, device)?;
    let trained = component.parameters().train(|_| true);
    let mut optimizer = AdamW::new(trained, &config.optimizer)?;
    mean_step(&mut *component, &mut optimizer, device)
}

fn mean_step(component: &mut dyn Component, optimizer: &mut AdamW, device: Device) -> Result<f64> {
    let period = component.period();
    let mut seconds = |steps: std::ops::Range<u64>| -> Result<f64> {
        let since = Instant::now();
        for step in steps {
            optimizer.zero_grad()?;
            libtorch::catch(|| component.losses(step).map(|losses| losses[0].1.backward()))??;
            optimizer.step(0.0)?;
        }
        libtorch::synchronize(device);
        Ok(since.elapsed().as_secs_f64())
    };
    seconds(0..WARM_UP)?;
    let ordinary = seconds(WARM_UP..WARM_UP + MEASURED)? / MEASURED as f64;
    match period {
        // Where it is shorter, the measured steps have had their share already.
        Some(period) if period >= WARM_UP + MEASURED => {
            let first = seconds(period..period + 1)?;
            Ok(ordinary + (first - ordinary).max(0.0) / period as f64)
        }
        _ => Ok(ordinary),
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use tch::{Kind, Tensor};
    use weights::Parameters;

    use super::*;

    const PERIOD: u64 = 20;
    /// What comes before each twentieth step.
    const PREPARING: Duration = Duration::from_millis(400);

    struct Slow(Parameters, Tensor);

    impl Component for Slow {
        fn parameters(&self) -> &Parameters {
            &self.0
        }

        fn losses(&mut self, step: u64) -> Result<Vec<(&'static str, Tensor)>> {
            if step.is_multiple_of(PERIOD) {
                sleep(PREPARING);
            }
            Ok(vec![("loss", self.1.square())])
        }

        fn period(&self) -> Option<u64> {
            Some(PERIOD)
        }
    }

    #[test]
    fn what_is_prepared_once_in_many_steps_has_its_share() {
        let weight = Tensor::ones([] as [i64; 0], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut optimizer = AdamW::new([("weight", &weight)], &optimizer::Config::default()).unwrap();
        let mut slow = Slow(Parameters::default(), weight);
        let seconds = mean_step(&mut slow, &mut optimizer, Device::Cpu).unwrap();
        // A step itself takes next to nothing.
        let share = PREPARING.as_secs_f64() / PERIOD as f64;
        assert!(seconds > 0.95 * share && seconds < 10.0 * share, "{seconds} s");
    }
}
