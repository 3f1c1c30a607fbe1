//! How much memory was used at most.

use std::fs;

use tch::Device;

use crate::shim::{self, check};
use crate::{Error, cuda_unavailable};

/// The most bytes in use at any moment so far, or since [`reset_peak_memory`]: of tensors on a GPU, of the whole
/// process (resident, with the pages of mapped files) on a CPU.
///
/// # Errors
/// When the system or LibTorch does not say.
pub fn peak_memory(device: Device) -> Result<u64, Error> {
    let Some(index) = cuda_index(device)? else {
        let status =
            fs::read_to_string("/proc/self/status").map_err(|e| unknown(&format!("/proc/self/status: {e}")))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        let kibibytes: Option<u64> = line.trim().strip_suffix("kB").and_then(|n| n.trim().parse().ok());
        return kibibytes.map(|k| k * 1024).ok_or_else(|| unknown("/proc/self/status has no VmHWM line"));
    };
    let mut bytes = 0;
    // Safety: `bytes` is written before the call returns.
    unsafe { check(shim::shim_cuda_peak(index, &mut bytes)) }?;
    u64::try_from(bytes).map_err(|_| unknown("the count is negative"))
}

/// Makes [`peak_memory`] start anew from what is in use now.
///
/// # Errors
/// When the system or LibTorch does not let it.
pub fn reset_peak_memory(device: Device) -> Result<(), Error> {
    match cuda_index(device)? {
        // Safety: plain values.
        Some(index) => unsafe { check(shim::shim_cuda_reset_peak(index)) },
        // 5 resets VmHWM; see proc_pid_clear_refs(5).
        None => fs::write("/proc/self/clear_refs", "5").map_err(|e| unknown(&format!("/proc/self/clear_refs: {e}"))),
    }
}

/// Gives the GPU memory that LibTorch keeps for later tensors back to the system; does nothing for a CPU.
///
/// # Errors
/// When LibTorch refuses.
pub fn release_cached_memory(device: Device) -> Result<(), Error> {
    match cuda_index(device)? {
        // Safety: no arguments.
        Some(_) => unsafe { check(shim::shim_cuda_empty_cache()) },
        None => Ok(()),
    }
}

/// The GPU's number, or none for the CPU.
fn cuda_index(device: Device) -> Result<Option<i8>, Error> {
    match device {
        Device::Cpu => Ok(None),
        Device::Cuda(index) => match (cuda_unavailable(), i8::try_from(index)) {
            (None, Ok(index)) => Ok(Some(index)),
            (reason, _) => Err(unknown(reason.unwrap_or("there is no such GPU"))),
        },
        other => Err(unknown(&format!("{other:?} is neither a CPU nor a CUDA device"))),
    }
}

fn unknown(reason: &str) -> Error {
    Error::Torch(format!("cannot measure the memory in use: {reason}"))
}
