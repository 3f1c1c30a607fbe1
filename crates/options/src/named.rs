//! Enums whose values have names, and what is said of a name that is none of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name that nothing has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {name:?}: use {known}")]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: String,
}

/// Characters of an unknown name that a message repeats.
const SHOWN: usize = 100;

impl UnknownName {
    pub(crate) fn new(what: &'static str, name: &str, known: impl Into<String>) -> Self {
        let mut shown: String = name.chars().take(SHOWN).collect();
        if shown.len() < name.len() {
            shown.push('…');
        }
        Self { what, name: shown, known: known.into() }
    }
}

/// What models are computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Dtype {
    /// 32-bit floats
    #[default]
    Fp32,
    /// 32-bit floats whose factors a GPU rounds to 10 bits of mantissa: several times as fast there, fp32 on a CPU
    Tf32,
    /// bfloat16; training keeps parameters and losses in fp32
    Bf16,
    /// 16-bit floats; not for training
    Fp16,
}

impl Dtype {
    /// The names, in the order of the values.
    pub const NAMES: [&str; 4] = ["fp32", "tf32", "bf16", "fp16"];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let all = [Self::Fp32, Self::Tf32, Self::Bf16, Self::Fp16];
        let found = all.into_iter().find(|dtype| dtype.name() == name);
        found.ok_or_else(|| UnknownName::new("dtype", name, Self::NAMES.join(", ")))
    }
}

/// What the U-Net predicts, in diffusers' words, with x = α x₀ + σ ε.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "clap", value(rename_all = "snake_case"))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum PredictionType {
    /// The noise ε
    #[default]
    Epsilon,
    /// The velocity v = α ε − σ x₀ (Salimans and Ho 2022, appendix D)
    VPrediction,
    /// The clean sample x₀
    Sample,
}

impl PredictionType {
    /// The names, in the order of the values.
    pub const NAMES: [&str; 3] = ["epsilon", "v_prediction", "sample"];
}

impl fmt::Display for PredictionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl FromStr for PredictionType {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "epsilon" => Ok(Self::Epsilon),
            "v_prediction" => Ok(Self::VPrediction),
            "sample" => Ok(Self::Sample),
            _ => Err(UnknownName::new("prediction type", name, Self::NAMES.join(", "))),
        }
    }
}

/// How a learning rate changes after its warm-up, as diffusers' `get_scheduler` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum LearningRateSchedule {
    /// It stays
    #[default]
    Constant,
    /// It falls to zero in a line
    Linear,
    /// It falls to zero in half a cosine
    Cosine,
}

/// A scheduler; parsed from diffusers' class name or a short one, displayed and serialised as the class name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(with = "String"))]
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

    /// Both names of each, for messages.
    pub fn known_names() -> String {
        Self::ALL.map(|kind| format!("{} ({})", kind.short_name(), kind.class_name())).join(", ")
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class_name())
    }
}

impl FromStr for SchedulerKind {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|kind| name == kind.class_name() || name == kind.short_name());
        found.ok_or_else(|| UnknownName::new("scheduler", name, format!("one of {}", Self::known_names())))
    }
}

impl Serialize for SchedulerKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.class_name())
    }
}

impl<'de> Deserialize<'de> for SchedulerKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "clap")]
impl clap::ValueEnum for SchedulerKind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.short_name()).alias(self.class_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_its_value() {
        for name in Dtype::NAMES {
            let dtype: Dtype = name.parse().unwrap();
            assert_eq!((dtype.to_string(), serde_json::to_value(dtype).unwrap()), (name.to_owned(), name.into()));
        }
        for name in PredictionType::NAMES {
            let kind: PredictionType = name.parse().unwrap();
            assert_eq!((kind.to_string(), serde_json::to_value(kind).unwrap()), (name.to_owned(), name.into()));
        }
        for kind in SchedulerKind::ALL {
            for name in [kind.class_name(), kind.short_name()] {
                assert_eq!(serde_json::from_value::<SchedulerKind>(name.into()).unwrap(), kind);
            }
        }
    }

    #[test]
    fn an_unknown_name_is_told_with_those_that_exist_and_not_at_length() {
        let error = "Unknown".parse::<SchedulerKind>().unwrap_err().to_string();
        assert!(error.starts_with(r#"unknown scheduler "Unknown": use one of ddpm (DDPMScheduler), "#), "{error}");
        let error = "x".repeat(1 << 20).parse::<Dtype>().unwrap_err().to_string();
        assert!(error.len() < 200 && error.ends_with("…\": use fp32, tf32, bf16, fp16"), "{error}");
    }
}
