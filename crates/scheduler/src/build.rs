//! A scheduler from a configuration, and what stands in for one that exists only in diffusers.

use crate::ddim::Ddim;
use crate::ddpm::Ddpm;
use crate::dpm_solver::DpmSolver;
use crate::euler::Euler;
use crate::euler_ancestral::EulerAncestral;
use crate::pndm::Pndm;
use crate::{Error, Scheduler, SchedulerConfig, SchedulerKind};

/// diffusers' other samplers of models with the same noise schedules.
const ELSEWHERE: [&str; 15] = [
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
];

impl SchedulerConfig {
    /// Builds any scheduler, as `KIND.from_config(...)` and `set_timesteps(steps)` do in diffusers.
    ///
    /// # Errors
    /// The configuration asks for what `kind` does not have, or `steps` do not fit it.
    pub fn build(&self, kind: SchedulerKind, steps: usize) -> Result<Box<dyn Scheduler>, Error> {
        self.check()?;
        if steps == 0 || steps > self.num_train_timesteps {
            return Err(Error::Steps { steps, most: self.num_train_timesteps });
        }
        Ok(match kind {
            SchedulerKind::Ddpm => Box::new(Ddpm::new(self, steps)?),
            SchedulerKind::Ddim => Box::new(Ddim::new(self, steps)?),
            SchedulerKind::Pndm => Box::new(Pndm::new(self, steps)?),
            SchedulerKind::DpmSolverPlusPlus => Box::new(DpmSolver::new(self, steps)?),
            SchedulerKind::Euler => Box::new(Euler::new(self, steps)?),
            SchedulerKind::EulerAncestral => Box::new(EulerAncestral::new(self, steps)?),
        })
    }

    /// The same with DDIM's `eta`, from 0 to 1; diffusers' pipelines pass it on to schedulers that have one, and ignore it for
    /// others.
    ///
    /// # Errors
    /// `kind` has no eta, or it is out of range.
    pub fn with_eta(&self, kind: SchedulerKind, eta: f64) -> Result<Self, Error> {
        if kind != SchedulerKind::Ddim {
            return Err(Error::NoEta { kind, eta });
        }
        limits::within("eta", eta, 0.0..=1.0, "0 adds no noise to a step, 1 as much as DDPM")?;
        Ok(Self { eta, ..self.clone() })
    }

    /// The configuration to sample by where nobody chooses a scheduler: this one, where this crate can follow it; else,
    /// with a note that says so, one for DPM-Solver++ with the same noise schedule, as
    /// `DPMSolverMultistepScheduler.from_config` makes it of the file of another class. Like most of those that may be missing
    /// here, it solves the probability flow's differential equation, in few steps and without noise.
    ///
    /// What is no scheduler of diffusers, or has another noise schedule, stays as it is; [`kind`](Self::kind) or
    /// [`build`](Self::build) says what is wrong with it.
    pub fn or_stand_in(self) -> (Self, Option<String>) {
        const STAND_IN: SchedulerKind = SchedulerKind::DpmSolverPlusPlus;
        // What does not depend on the number of steps shows in a single one.
        let unsupported =
            |config: &Self, kind| config.build(kind, 1).err().filter(|e| matches!(e, Error::Unsupported { .. }));
        let reason = match (self.kind(), &self.class_name) {
            (Ok(kind), _) => unsupported(&self, kind).map(|error| error.to_string()),
            (Err(_), Some(name)) if ELSEWHERE.contains(&name.as_str()) => Some(format!("{name} does not exist here")),
            _ => None,
        };
        let continuous = self.timestep_type != Self::default().timestep_type;
        let Some(reason) = reason.filter(|_| !continuous) else { return (self, None) };
        let named = Self { class_name: Some(STAND_IN.class_name().to_owned()), ..self.clone() };
        let reset = named.clone().with_default_solver();
        match [named, reset].into_iter().find(|config| unsupported(config, STAND_IN).is_none()) {
            Some(config) => (config, Some(format!("{reason}; {STAND_IN} stands in, with the same noise schedule"))),
            None => (self, None),
        }
    }

    /// The same noise schedule and prediction, with nothing special in how they are sampled.
    fn with_default_solver(self) -> Self {
        let default = Self::default();
        Self {
            thresholding: default.thresholding,
            algorithm_type: default.algorithm_type,
            solver_type: default.solver_type,
            solver_order: default.solver_order,
            lower_order_final: default.lower_order_final,
            euler_at_final: default.euler_at_final,
            lambda_min_clipped: default.lambda_min_clipped,
            use_exponential_sigmas: default.use_exponential_sigmas,
            use_beta_sigmas: default.use_beta_sigmas,
            use_lu_lambdas: default.use_lu_lambdas,
            ..self
        }
    }
}
