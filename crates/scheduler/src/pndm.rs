//! PNDM (Liu et al. 2022): pseudo linear multistep, after pseudo Runge-Kutta steps unless those are skipped.

use tch::Tensor;

use crate::config::unsupported;
use crate::prediction::{Level, Prediction};
use crate::step::Inputs;
use crate::{Error, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, TimestepSpacing};

/// A plan of model calls, made once, and the memory that they share.
#[derive(Debug)]
pub(crate) struct Pndm {
    timesteps: Vec<f32>,
    calls: Vec<Call>,
    prediction_type: PredictionType,
    next: usize,
    memory: Memory,
}

/// What one model call is used for.
#[derive(Debug)]
struct Call {
    rule: Rule,
    transfer: Transfer,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Step with this output alone, and keep the sample.
    First,
    /// Repeat the first step from the kept sample, with the mean of its output and this one.
    Again,
    /// Step with a linear combination of the last outputs, up to four, eq. 12.
    Multistep,
    /// One of the four evaluations of a Runge-Kutta step, all of them from the sample kept at the first, eq. 13.
    RungeKutta(usize),
}

#[derive(Debug, Default)]
struct Memory {
    /// The sample that the current group of calls starts from.
    kept: Option<Tensor>,
    /// Model outputs, oldest first.
    outputs: Vec<Tensor>,
    /// The weighted sum of a Runge-Kutta step's outputs so far.
    sum: Option<Tensor>,
}

impl Pndm {
    pub(crate) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, Error> {
        if config.prediction_type == PredictionType::Sample {
            let instead = "epsilon or v_prediction, or another scheduler";
            return Err(unsupported(SchedulerKind::Pndm, "prediction_type", &"sample", instead));
        }
        let schedule = NoiseSchedule::new(&SchedulerConfig { rescale_betas_zero_snr: false, ..config.clone() })?;
        let table = schedule.alphas_cumprod();
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Leading);
        let visited = spacing.integers(table.len(), steps, config.steps_offset)?;
        let jump = table.len() / steps;
        let plan = if config.skip_prk_steps {
            multistep_plan(&visited, jump)
        } else if steps < 4 {
            return Err(unsupported(SchedulerKind::Pndm, "skip_prk_steps", &false, "true, or at least 4 steps"));
        } else {
            runge_kutta_plan(&visited, jump)
        };
        let past_the_last = if config.set_alpha_to_one.unwrap_or(false) { 1.0 } else { table[0] };
        let calls = plan.iter().map(|&Planned { rule, from, to, .. }| {
            let to = to.map_or(past_the_last, |to| table[to]);
            Call { rule, transfer: Transfer::new(table[from], to) }
        });
        Ok(Self {
            calls: calls.collect(),
            timesteps: plan.iter().map(|call| call.timestep as f32).collect(),
            prediction_type: config.prediction_type,
            next: 0,
            memory: Memory::default(),
        })
    }
}

/// A call at `timestep` that takes the sample `from` one timestep `to` another, or past the last.
struct Planned {
    timestep: usize,
    rule: Rule,
    from: usize,
    to: Option<usize>,
}

/// Linear multistep from the start: the second timestep is visited twice. `visited` is in descending order, and no two
/// of it are closer than `jump`.
fn multistep_plan(visited: &[usize], jump: usize) -> Vec<Planned> {
    let again = visited.get(1).map(|&t| Planned { timestep: t, rule: Rule::Again, from: t + jump, to: Some(t) });
    let once = |(i, &timestep): (usize, &usize)| {
        let rule = if i == 0 { Rule::First } else { Rule::Multistep };
        Planned { timestep, rule, from: timestep, to: timestep.checked_sub(jump) }
    };
    let mut plan: Vec<_> = visited.iter().enumerate().map(once).collect();
    plan.splice(plan.len().min(1)..plan.len().min(1), again);
    plan
}

/// Three Runge-Kutta steps of four calls each, at, twice between and after, then linear multistep.
fn runge_kutta_plan(visited: &[usize], jump: usize) -> Vec<Planned> {
    let mut plan = Vec::new();
    for ends in visited[..4].windows(2) {
        let (start, end) = (ends[0], ends[1]);
        let between = end + jump / 2;
        for (phase, timestep) in [start, between, between, end].into_iter().enumerate() {
            let to = timestep - if phase % 2 == 0 { jump / 2 } else { 0 };
            plan.push(Planned { timestep, rule: Rule::RungeKutta(phase), from: start, to: Some(to) });
        }
    }
    let multistep =
        |&timestep| Planned { timestep, rule: Rule::Multistep, from: timestep, to: timestep.checked_sub(jump) };
    plan.extend(visited[3..].iter().map(multistep));
    plan
}

impl Memory {
    /// The combined model output and the sample that `rule` steps with.
    fn combine(&mut self, rule: Rule, output: &Tensor, sample: &Tensor) -> (Tensor, Tensor) {
        if matches!(rule, Rule::First | Rule::RungeKutta(0)) {
            self.kept = Some(sample.shallow_clone());
        }
        if !matches!(rule, Rule::Again | Rule::RungeKutta(1..)) {
            self.outputs.push(output.shallow_clone());
            let excess = self.outputs.len().saturating_sub(4);
            self.outputs.drain(..excess);
        }
        let combined = match (rule, self.outputs.as_slice()) {
            (Rule::First, _) => output.shallow_clone(),
            (Rule::Again, [.., e1]) => (output + e1) / 2.0,
            (Rule::RungeKutta(phase), _) => self.accumulate(phase, output),
            (_, [e4, e3, e2, e1]) => (e1 * 55.0 - e2 * 59.0 + e3 * 37.0 - e4 * 9.0) * (1.0 / 24.0),
            (_, [e3, e2, e1]) => (e1 * 23.0 - e2 * 16.0 + e3 * 5.0) / 12.0,
            (_, [e2, e1]) => (e1 * 3.0 - e2) / 2.0,
            _ => output.shallow_clone(),
        };
        let start = match (rule, &self.kept) {
            (Rule::Again | Rule::RungeKutta(_), Some(kept)) => kept.shallow_clone(),
            _ => sample.shallow_clone(),
        };
        (combined, start)
    }

    /// The output of a Runge-Kutta evaluation, or at the last one the sum of all four, weighted 1, 2, 2, 1.
    fn accumulate(&mut self, phase: usize, output: &Tensor) -> Tensor {
        let weighted = output * if matches!(phase, 0 | 3) { 1.0 / 6.0 } else { 1.0 / 3.0 };
        let sum = match self.sum.take() {
            Some(sum) => sum + weighted,
            None => weighted,
        };
        if phase == 3 {
            return sum;
        }
        self.sum = Some(sum);
        output.shallow_clone()
    }
}

/// Eq. 9: the coefficients of a transfer from one noise level to another.
#[derive(Debug)]
struct Transfer {
    from: Level,
    sample: f64,
    difference: f64,
    denominator: f64,
}

impl Transfer {
    /// From ᾱ `from` to ᾱ `to`.
    fn new(from: f32, to: f32) -> Self {
        let denominator = from * (1.0 - to).sqrt() + (from * (1.0 - from) * to).sqrt();
        Self {
            from: Level::new(from),
            sample: (to / from).sqrt().into(),
            difference: (to - from).into(),
            denominator: denominator.into(),
        }
    }

    fn apply(&self, sample: &Tensor, epsilon: &Tensor) -> Tensor {
        sample * self.sample - epsilon * self.difference / self.denominator
    }
}

impl Scheduler for Pndm {
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
        let given = Inputs::new(index, self.calls.len(), model_output, sample)?;
        if index == 0 {
            self.memory = Memory::default();
        } else if index != self.next {
            return Err(Error::OutOfOrder { kind: SchedulerKind::Pndm, index, expected: self.next });
        }
        self.next = index + 1;
        let Call { rule, transfer } = &self.calls[index];
        let (output, start) = self.memory.combine(*rule, &given.output, &given.sample);
        let epsilon = self.prediction_type.to_epsilon(&output, &start, transfer.from);
        Ok(given.finish(&transfer.apply(&start, &epsilon)))
    }
}
