//! Which device to compute on.

use std::fmt;
use std::str::FromStr;

use crate::cuda_unavailable;

/// What a user asked for: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU when there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number; it is an error when there is none.
    Cuda(usize),
}

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not one of the words.
    #[error("unknown device '{0}': use auto, cpu, cuda or cuda:N")]
    Unknown(String),
    /// CUDA cannot be used on this machine.
    #[error("device cuda:{index} is not available: {reason}; use --device cpu or --device auto")]
    NoCuda {
        /// The GPU that was asked for.
        index: usize,
        /// Why there is no CUDA.
        reason: String,
    },
    /// There are GPUs, but fewer.
    #[error("device cuda:{index} does not exist: this machine has {count} GPU(s), numbered from 0")]
    NoSuchGpu {
        /// The GPU that was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
}

impl DeviceChoice {
    /// The device itself. CUDA is looked for now, and its absence is an error only where CUDA was asked for.
    pub fn resolve(self) -> Result<tch::Device, DeviceError> {
        match self {
            Self::Cpu => Ok(tch::Device::Cpu),
            Self::Auto if cuda_unavailable().is_some() => Ok(tch::Device::Cpu),
            Self::Auto => Ok(tch::Device::Cuda(0)),
            Self::Cuda(index) => {
                if let Some(reason) = cuda_unavailable() {
                    return Err(DeviceError::NoCuda { index, reason: reason.to_owned() });
                }
                let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
                if index >= count {
                    return Err(DeviceError::NoSuchGpu { index, count });
                }
                Ok(tch::Device::Cuda(index))
            }
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || DeviceError::Unknown(text.to_owned());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let index = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                index.parse().map(Self::Cuda).map_err(|_| unknown())
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Waits until `device` has finished what was queued on it; returns at once for the CPU.
pub fn synchronize(device: tch::Device) {
    if let tch::Device::Cuda(index) = device {
        tch::Cuda::synchronize(i64::try_from(index).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_written() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            assert_eq!(wrong.parse::<DeviceChoice>(), Err(DeviceError::Unknown(wrong.to_owned())));
        }
    }

    #[test]
    fn asking_for_cuda_says_what_is_there() {
        match (cuda_unavailable(), DeviceChoice::Cuda(999).resolve()) {
            (Some(reason), Err(DeviceError::NoCuda { index: 999, reason: said })) => {
                assert_eq!(reason, said);
                assert_eq!(DeviceChoice::Auto.resolve(), Ok(tch::Device::Cpu));
            }
            (None, Err(DeviceError::NoSuchGpu { index: 999, count })) => {
                assert!(count > 0);
                assert_eq!(DeviceChoice::Auto.resolve(), Ok(tch::Device::Cuda(0)));
            }
            (reason, outcome) => panic!("{reason:?} but {outcome:?}"),
        }
    }
}
