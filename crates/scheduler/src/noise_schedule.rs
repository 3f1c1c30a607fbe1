//! The tables behind every scheduler: betas and their cumulative products.

use std::f64::consts::PI;

use crate::{BetaSchedule, Error, SchedulerConfig};

/// ᾱ of the last timestep where zero would make σ infinite: the smallest positive half-precision number.
const NEARLY_ZERO: f32 = 1.0 / 16_777_216.0;

/// The noise levels of the T trained timesteps: β_t and ᾱ_t = ∏ (1 − β_i), in f32 and in torch's order of operations.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    betas: Vec<f32>,
    alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// Computes the tables; `rescale_betas_zero_snr` makes ᾱ of the last timestep exactly 0.
    ///
    /// # Errors
    /// [`Error::Betas`] when there are none or one is outside 0 ≤ β < 1.
    pub fn new(config: &SchedulerConfig) -> Result<Self, Error> {
        config.check()?;
        let mut betas = betas(config)?;
        if config.rescale_betas_zero_snr {
            rescale_to_zero_terminal_snr(&mut betas);
        }
        let alphas_cumprod = cumulative_product(betas.iter().map(|beta| 1.0 - beta));
        Ok(Self { betas, alphas_cumprod })
    }

    /// The tables with every σ finite, for the schedulers that work in σ (Euler, DPM-Solver).
    pub(crate) fn with_finite_sigmas(config: &SchedulerConfig) -> Result<Self, Error> {
        let mut schedule = Self::new(config)?;
        if let (true, Some(last)) = (config.rescale_betas_zero_snr, schedule.alphas_cumprod.last_mut()) {
            *last = NEARLY_ZERO;
        }
        Ok(schedule)
    }

    /// The number T of trained timesteps, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.betas.len()
    }

    /// β_t, the variance of the noise that timestep t adds.
    pub fn betas(&self) -> &[f32] {
        &self.betas
    }

    /// ᾱ_t, the share of the signal's variance that is left at timestep t.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// σ_t = √((1 − ᾱ_t) / ᾱ_t), noise relative to signal; infinite where ᾱ_t is 0.
    pub fn sigmas(&self) -> Vec<f32> {
        self.alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect()
    }
}

fn betas(config: &SchedulerConfig) -> Result<Vec<f32>, Error> {
    let count = config.num_train_timesteps;
    let betas = match (&config.trained_betas, config.beta_schedule) {
        (Some(betas), _) if betas.len() != count => {
            let message = format!("trained_betas has {} values but num_train_timesteps is {count}", betas.len());
            return Err(Error::Betas(message));
        }
        (Some(betas), _) => betas.clone(),
        (None, BetaSchedule::Linear) => linspace(config.beta_start, config.beta_end, count),
        (None, BetaSchedule::ScaledLinear) => {
            linspace(config.beta_start.sqrt(), config.beta_end.sqrt(), count).iter().map(|root| root * root).collect()
        }
        (None, BetaSchedule::SquaredcosCapV2) => squared_cosine(count),
    };
    if betas.is_empty() {
        return Err(Error::Betas("num_train_timesteps is 0, use the number the model was trained with".to_owned()));
    }
    match betas.iter().enumerate().find(|(_, beta)| !(0.0..1.0).contains(*beta)) {
        Some((t, beta)) => Err(Error::Betas(format!(
            "beta {beta} at timestep {t} is outside 0 <= beta < 1, check beta_start, beta_end and trained_betas"
        ))),
        None => Ok(betas),
    }
}

/// `torch.linspace` in f32: from both ends towards the middle.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count.max(2) - 1) as f32;
    let value = |i| if i < count / 2 { start + step * i as f32 } else { end - step * (count - i - 1) as f32 };
    match count {
        1 => vec![start],
        _ => (0..count).map(value).collect(),
    }
}

/// The cosine schedule (Nichol & Dhariwal 2021, eq. 17), betas capped at 0.999.
fn squared_cosine(count: usize) -> Vec<f32> {
    let alpha_bar = |i: usize| ((i as f64 / count as f64 + 0.008) / 1.008 * PI / 2.0).cos().powi(2);
    (0..count).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32).collect()
}

/// Shifts and scales √ᾱ so that it ends at 0 and starts where it did (Lin et al. 2023, algorithm 1).
fn rescale_to_zero_terminal_snr(betas: &mut [f32]) {
    let roots: Vec<f32> = cumulative_product(betas.iter().map(|beta| 1.0 - beta)).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return };
    let scale = first / (first - last);
    let mut previous = 1.0;
    for (beta, root) in betas.iter_mut().zip(roots) {
        let rescaled = (root - last) * scale;
        let alpha_bar = rescaled * rescaled;
        *beta = 1.0 - alpha_bar / previous;
        previous = alpha_bar;
    }
}

/// `torch.cumprod` of f32 values on a CPU: accumulates in f64, keeps f32.
fn cumulative_product(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let accumulate = |product: &mut f64, value| {
        *product *= f64::from(value);
        Some(*product as f32)
    };
    values.scan(1.0, accumulate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stable_diffusion() -> SchedulerConfig {
        SchedulerConfig {
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            ..SchedulerConfig::default()
        }
    }

    fn assert_near(actual: f32, expected: f64) {
        assert!((f64::from(actual) / expected - 1.0).abs() < 2e-6, "{actual} is not {expected}");
    }

    /// Computed in f64.
    #[test]
    fn stable_diffusion_has_its_published_noise_levels() {
        let schedule = NoiseSchedule::new(&stable_diffusion()).unwrap();
        for (t, expected) in [
            (0, 0.99915),
            (1, 0.998_296_028),
            (21, 0.980_380_748),
            (100, 0.894_223_478),
            (250, 0.673_792_625),
            (500, 0.276_332_684),
            (750, 0.056_169_848),
            (981, 0.005_775_500),
            (999, 0.004_660_099),
        ] {
            assert_near(schedule.alphas_cumprod()[t], expected);
        }
        let sigmas = schedule.sigmas();
        assert_near(sigmas[500], 1.618_279);
        assert_near(sigmas[999], 14.614_641);
    }

    #[test]
    fn zero_terminal_snr_ends_at_exactly_zero() {
        let config = SchedulerConfig { rescale_betas_zero_snr: true, ..stable_diffusion() };
        let schedule = NoiseSchedule::new(&config).unwrap();
        assert_near(schedule.alphas_cumprod()[0], 0.99915);
        assert_near(schedule.alphas_cumprod()[500], 0.241_018_783);
        assert_eq!(schedule.alphas_cumprod()[999], 0.0);
        let finite = NoiseSchedule::with_finite_sigmas(&config).unwrap();
        assert_near(finite.sigmas()[999], f64::from((1 << 24) - 1).sqrt());
    }

    /// An integer division once made every beta of this schedule the same in two other implementations.
    #[test]
    fn the_cosine_schedule_is_a_cosine() {
        let config = SchedulerConfig { beta_schedule: BetaSchedule::SquaredcosCapV2, ..SchedulerConfig::default() };
        let schedule = NoiseSchedule::new(&config).unwrap();
        for t in [0, 100, 500, 900] {
            let angle = |x: f64| ((x + 0.008) / 1.008 * PI / 2.0).cos().powi(2);
            let expected = angle((t + 1) as f64 / 1000.0) / angle(0.0);
            let actual = f64::from(schedule.alphas_cumprod()[t]);
            assert!((actual - expected).abs() < 1e-5, "{actual} is not {expected} at {t}");
        }
        assert_eq!(schedule.betas()[999], 0.999);
    }
}
