//! DPM-Solver++ 2M (Lu et al. 2022).

use tch::Tensor;

use crate::config::unsupported;
use crate::prediction::{Level, Prediction};
use crate::sigmas::{final_sigma, karras, timestep_of};
use crate::step::Inputs;
use crate::timesteps::{linspace, trailing};
use crate::{
    BetaSchedule, Error, FinalSigmas, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind,
    TimestepSpacing,
};

const KIND: SchedulerKind = SchedulerKind::DpmSolverPlusPlus;

/// Algorithm 2 with data prediction: the integral over λ = ln(α/σ) by the midpoint rule, from the last two predictions.
///
/// A step whose predecessor was not the last one made is of order 1, so that sampling may start anywhere.
#[derive(Debug)]
pub(crate) struct DpmSolver {
    timesteps: Vec<f32>,
    steps: Vec<Step>,
    prediction_type: PredictionType,
    /// The last step made, and what it predicted.
    previous: Option<(usize, Tensor)>,
}

#[derive(Debug)]
struct Step {
    from: Level,
    /// σ'/σ
    sample: f64,
    /// α'(e^−h − 1)
    x0: f64,
    /// h / h₀, the weight of the slope between the last two predictions; none in a step of order 1.
    slope: Option<f64>,
}

/// A noise level and its half-log-SNR.
#[derive(Clone, Copy)]
struct Point {
    alpha: f32,
    sigma: f32,
    lambda: f32,
}

impl Point {
    fn new(sigma: f32) -> Self {
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        let sigma = sigma * alpha;
        Self { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }
}

impl DpmSolver {
    pub(crate) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, Error> {
        refuse_other_solvers(config)?;
        let schedule = NoiseSchedule::with_finite_sigmas(config)?;
        let (timesteps, sigmas) = path(config, &schedule, steps)?;
        let last = timesteps.len() - 1;
        let ends_at_order_1 = config.euler_at_final
            || config.final_sigmas_type == FinalSigmas::Zero
            || (config.lower_order_final && timesteps.len() < 15);
        let points: Vec<Point> = sigmas.into_iter().map(Point::new).collect();
        let step = |index: usize| {
            let before =
                index.checked_sub(1).filter(|_| config.solver_order > 1 && !(index == last && ends_at_order_1));
            Step::new(before.map(|i| points[i]), points[index], points[index + 1])
        };
        Ok(Self {
            steps: (0..=last).map(step).collect(),
            timesteps: timesteps.iter().map(|&t| t as f32).collect(),
            prediction_type: config.prediction_type,
            previous: None,
        })
    }
}

fn refuse_other_solvers(config: &SchedulerConfig) -> Result<(), Error> {
    config.refuse_thresholding(KIND)?;
    config.refuse_exotic_sigmas(KIND)?;
    // What other classes' files say for these keys, diffusers reads as the defaults.
    if !matches!(config.algorithm_type.as_str(), "dpmsolver++" | "deis") {
        return Err(unsupported(KIND, "algorithm_type", &config.algorithm_type, "dpmsolver++"));
    }
    if !matches!(config.solver_type.as_str(), "midpoint" | "logrho" | "bh1" | "bh2") {
        return Err(unsupported(KIND, "solver_type", &config.solver_type, "midpoint"));
    }
    if !matches!(config.solver_order, 1 | 2) {
        return Err(unsupported(KIND, "solver_order", &config.solver_order, "1 or 2"));
    }
    Ok(())
}

/// The timesteps, and one σ more than those.
fn path(config: &SchedulerConfig, schedule: &NoiseSchedule, steps: usize) -> Result<(Vec<usize>, Vec<f32>), Error> {
    let table = schedule.sigmas();
    let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
    let (timesteps, mut sigmas): (Vec<usize>, Vec<f32>) = if config.use_karras_sigmas == Some(true) {
        let sigmas = karras(config, (table[table.len() - 1].into(), table[0].into()), steps);
        // The cosine schedule's timesteps are cut off, not rounded.
        let cut_off = config.beta_schedule == BetaSchedule::SquaredcosCapV2;
        let whole = |t: f64| if cut_off { t } else { t.round_ties_even() };
        sigmas.iter().map(|&sigma| (whole(timestep_of(sigma, &table)) as usize, sigma as f32)).unzip()
    } else {
        let timesteps = spaced(spacing, config, usable_timesteps(config, schedule)?, steps);
        spacing.check(timesteps, table.len(), steps)?.into_iter().map(|t| (t, table[t])).unzip()
    };
    if let Some(i) = sigmas.windows(2).position(|pair| pair[0] == pair[1]) {
        return Err(Error::RepeatedTimestep { steps, spacing, timestep: timesteps[i] });
    }
    sigmas.push(final_sigma(config, &table));
    Ok((timesteps, sigmas))
}

/// How many timesteps are left without those noisier than `lambda_min_clipped`.
fn usable_timesteps(config: &SchedulerConfig, schedule: &NoiseSchedule) -> Result<usize, Error> {
    let Some(least) = config.lambda_min_clipped else { return Ok(schedule.len()) };
    let lambda = |a: &f32| f64::from(a.sqrt().ln() - (1.0 - a).sqrt().ln());
    let clipped = schedule.alphas_cumprod().iter().filter(|a| lambda(a) < least).count();
    if clipped == schedule.len() {
        return Err(unsupported(KIND, "lambda_min_clipped", &least, "a smaller value, which leaves timesteps"));
    }
    Ok(schedule.len() - clipped)
}

/// Timesteps below `usable`; unlike other schedulers', those of a path with one more point, at or near 0, left out.
fn spaced(spacing: TimestepSpacing, config: &SchedulerConfig, usable: usize, steps: usize) -> Vec<usize> {
    match spacing {
        TimestepSpacing::Leading => {
            (1..=steps).rev().map(|i| (i * (usable / (steps + 1))).saturating_add(config.steps_offset)).collect()
        }
        TimestepSpacing::Linspace => {
            linspace(usable - 1, steps + 1).take(steps).map(|t| t.round_ties_even() as usize).collect()
        }
        TimestepSpacing::Trailing => trailing(usable, config.num_train_timesteps, steps),
    }
}

impl Step {
    /// To `to`, with a slope when there is a point before `from`.
    fn new(before: Option<Point>, from: Point, to: Point) -> Self {
        let h = to.lambda - from.lambda;
        // diffusers divides by h₀/h, which rounds differently from multiplying by h/h₀.
        let slope = before.map(|before| 1.0 / ((from.lambda - before.lambda) / h));
        Self {
            from: Level { alpha: from.alpha.into(), sigma: from.sigma.into() },
            sample: (to.sigma / from.sigma).into(),
            x0: (to.alpha * ((-h).exp() - 1.0)).into(),
            slope: slope.map(f64::from),
        }
    }
}

impl Scheduler for DpmSolver {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(
        &mut self,
        index: usize,
        model_output: &Tensor,
        sample: &Tensor,
        _noise: Option<&Tensor>,
    ) -> Result<Tensor, Error> {
        let given = Inputs::new(index, self.steps.len(), model_output, sample)?;
        let step = &self.steps[index];
        let x0 = self.prediction_type.to_x0(&given.output, &given.sample, step.from);
        let mut next = &given.sample * step.sample - &x0 * step.x0;
        let previous = self.previous.take().filter(|(made, _)| made + 1 == index);
        if let (Some(slope), Some((_, before))) = (step.slope, previous) {
            next -= (&x0 - before) * slope * (0.5 * step.x0);
        }
        self.previous = Some((index, x0));
        Ok(given.finish(&next))
    }
}
