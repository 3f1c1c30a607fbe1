//! Which schedulers there are and what they are called.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A scheduler; parsed from diffusers' class name or a short one, displayed as the class name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// `DDPMScheduler`, short `ddpm`.
    Ddpm,
    /// `DDIMScheduler`, short `ddim`.
    Ddim,
    /// `PNDMScheduler`, short `pndm`.
    Pndm,
    /// `DPMSolverMultistepScheduler`, short `dpm-solver++`.
    DpmSolverPlusPlus,
    /// `EulerDiscreteScheduler`, short `euler`.
    Euler,
    /// `EulerAncestralDiscreteScheduler`, short `euler-ancestral`.
    EulerAncestral,
}

impl SchedulerKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Ddpm, Self::Ddim, Self::Pndm, Self::DpmSolverPlusPlus, Self::Euler, Self::EulerAncestral];

    /// The name of diffusers' class, as in `_class_name`.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Ddpm => "DDPMScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::DpmSolverPlusPlus => "DPMSolverMultistepScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
        }
    }

    /// The name for command lines.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::DpmSolverPlusPlus => "dpm-solver++",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-ancestral",
        }
    }

    pub(crate) fn known_names() -> String {
        Self::ALL.map(|kind| format!("{} ({})", kind.short_name(), kind.class_name())).join(", ")
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class_name())
    }
}

impl FromStr for SchedulerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|kind| name == kind.class_name() || name == kind.short_name());
        found.ok_or_else(|| Error::UnknownScheduler { name: name.to_owned() })
    }
}
