//! The device and the dtype that users choose, in LibTorch's terms.

use options::{DeviceChoice, Dtype};
use tch::{Device, Kind};

use crate::cuda_unavailable;

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
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

/// The device that `choice` names. CUDA is looked for now, and its absence is an error only where CUDA was asked for.
///
/// # Errors
/// When the GPU that was asked for cannot be used.
pub fn resolve(choice: DeviceChoice) -> Result<Device, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto if cuda_unavailable().is_some() => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(Device::Cuda(0)),
        DeviceChoice::Cuda(index) => {
            if let Some(reason) = cuda_unavailable() {
                return Err(DeviceError::NoCuda { index, reason: reason.to_owned() });
            }
            let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
            if index >= count {
                return Err(DeviceError::NoSuchGpu { index, count });
            }
            Ok(Device::Cuda(index))
        }
    }
}

/// LibTorch's name of a dtype.
pub fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Fp32 | Dtype::Tf32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::Fp16 => Kind::Half,
    }
}

/// Waits until `device` has finished what was queued on it; returns at once for the CPU.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(i64::try_from(index).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_cuda_says_what_is_there() {
        match (cuda_unavailable(), resolve(DeviceChoice::Cuda(999))) {
            (Some(reason), Err(DeviceError::NoCuda { index: 999, reason: said })) => {
                assert_eq!(reason, said);
                assert_eq!(resolve(DeviceChoice::Auto), Ok(Device::Cpu));
            }
            (None, Err(DeviceError::NoSuchGpu { index: 999, count })) => {
                assert!(count > 0);
                assert_eq!(resolve(DeviceChoice::Auto), Ok(Device::Cuda(0)));
            }
            (reason, outcome) => panic!("{reason:?} but {outcome:?}"),
        }
    }
}
