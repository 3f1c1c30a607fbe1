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
        let kibibytes = field(&status, "VmHWM:");
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

/// The bytes of freed tensors of up to 4 MiB that are kept by their sizes: as many as a step of the miniature frees.
const KEPT_BYTES: usize = 128 << 20;

/// Keeps freed memory for later tensors, as LibTorch does on a GPU: 128 MiB of small ones by their sizes and, where the C library
/// is glibc, all others.
///
/// To be called once, before tensors are made. Otherwise each tensor above 32 MB is memory that the system has to map and
/// clear anew, which is much of a training step's time, and glibc looks long for the place of each smaller one. The process
/// stays as large as it once was, until [`release_cached_memory`].
pub fn keep_freed_memory() {
    // Safety: a plain number. That a C library has no room for an empty list is no reason to end.
    drop(unsafe { check(shim::shim_keep_freed(KEPT_BYTES)) });
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // Safety: plain numbers; glibc leaves its settings alone where it does not like one.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        // Never.
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Gives the memory that is kept for later tensors back to the system.
///
/// # Errors
/// When LibTorch refuses.
pub fn release_cached_memory(device: Device) -> Result<(), Error> {
    match cuda_index(device)? {
        // Safety: no arguments.
        Some(_) => unsafe { check(shim::shim_cuda_empty_cache()) },
        None => {
            // Safety: no arguments; no tensor's memory is kept.
            unsafe { check(shim::shim_release_kept()) }?;
            #[cfg(all(target_os = "linux", target_env = "gnu"))]
            // Safety: no tensor's memory is free.
            unsafe {
                libc::malloc_trim(0);
            }
            Ok(())
        }
    }
}

/// The bytes of the host's memory in all, or as many as a container (cgroup v2) may have, where the system says.
pub fn total_memory() -> Option<u64> {
    let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")? * 1024;
    Some(cgroup_limit().map_or(machine, |limit| limit.min(machine)))
}

/// Half of the bytes of the host's memory beyond `reserved`: what a program may give to [`crate::Frozen`] on a machine that has
/// to hold so much else. Always the same on one machine, so that the same work gives the same numbers; no limit where the
/// system does not say.
pub fn half_of_memory_beyond(reserved: u64) -> u64 {
    total_memory().map_or(u64::MAX, |bytes| bytes.saturating_sub(reserved) / 2)
}

/// The bytes of the host's memory that are free or can be made so, where the system says.
pub fn available_memory() -> Option<u64> {
    let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")? * 1024;
    let within_cgroup = || {
        let current: u64 = cgroup("memory.current")?.trim().parse().ok()?;
        // What is held of files can be given up.
        let files = field(&cgroup("memory.stat")?, "file")?;
        Some(cgroup_limit()?.saturating_sub(current.saturating_sub(files)))
    };
    Some(within_cgroup().map_or(machine, |free| free.min(machine)))
}

fn cgroup(file: &str) -> Option<String> {
    fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()
}

fn cgroup_limit() -> Option<u64> {
    cgroup("memory.max")?.trim().parse().ok()
}

/// The number in the line that begins with the word `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let words = text.lines().map(str::split_whitespace);
    words.into_iter().find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_names() {
        let text = "MemTotal:       24000 kB\nMemAvailable:   16000 kB\nfile 5\nfile_mapped 6\nempty\n";
        assert_eq!(field(text, "MemAvailable:"), Some(16000));
        assert_eq!(field(text, "file"), Some(5));
        assert_eq!([field(text, "Mem"), field(text, "empty"), field(text, "kB")], [None; 3]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_memory() {
        let (free, all) = (available_memory().unwrap(), total_memory().unwrap());
        assert!(free > 1 << 20 && free <= all, "{free} of {all}");
    }
}
