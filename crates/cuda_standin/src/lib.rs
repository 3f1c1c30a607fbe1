//! For tests only: a CUDA device without a GPU.
//!
//! A shared library (`cpp/`) registers under LibTorch's CUDA key what the real `libtorch_cuda.so` registers there: a device
//! with memory, a queue and events, and kernels, which are the CPU's. A process that has it preloaded computes on
//! `Device::Cuda(0)`, so that every branch of the product for a GPU is taken, and with the CPU's results. It is as strict as a
//! GPU where that is easily forgotten on a CPU:
//!
//! - the host cannot touch the device's memory: that is a segmentation fault;
//! - tensors on two devices do not mix, but for single numbers in element-wise operations;
//! - what is asked for without waiting has not arrived until it was waited for;
//! - nothing is zero before it was written; random numbers cannot be drawn on the device;
//! - with [`BYTES`] set, memory runs out.
//!
//! It counts what is asked of it ([`COUNTS`]), for tests of what should not be: copies that the host waits for.
//!
//! Invariants: a dev-dependency, never part of the product, which knows nothing of it. The library comes into a process by the loader's own
//! `LD_PRELOAD`, or where a test opens it. Where this crate's build script cannot build it, no test that needs it is built.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The environment variable with the bytes of the device's memory; without it, there is always more.
pub const BYTES: &str = "CUDA_STANDIN_BYTES";

/// The environment variable with the path of a file that tells, when the process has ended, what it asked of the device: one
/// JSON object of numbers `kernels`, `allocations`, `blocking_uploads`, `queued_uploads`, `blocking_downloads`,
/// `queued_downloads` and `waits`.
pub const COUNTS: &str = "CUDA_STANDIN_COUNTS";

const NAME: &str = "libcuda_standin.so";

/// The library's file.
pub fn library() -> PathBuf {
    Path::new(env!("CUDA_STANDIN_FOLDER")).join(NAME)
}

/// Lets `command` have the stand-in as its CUDA device.
pub fn preload(command: &mut Command) -> &mut Command {
    // By its name alone: LD_PRELOAD could not say a path that has spaces.
    let earlier = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::iter::once(PathBuf::from(env!("CUDA_STANDIN_FOLDER"))).chain(env::split_paths(&earlier));
    let path: OsString = env::join_paths(folders).expect("the target folder's path has no colon");
    command.env("LD_LIBRARY_PATH", path).env("LD_PRELOAD", NAME)
}

/// Lets `command` have a CUDA device: the machine's GPU where one is visible, else the stand-in.
pub fn offer(command: &mut Command) -> &mut Command {
    if gpu_is_visible() { command } else { preload(command) }
}

/// Whether this process has the stand-in.
pub fn is_here() -> bool {
    env::var_os("LD_PRELOAD").is_some_and(|libraries| libraries.to_string_lossy().contains(NAME))
}

/// Whether this machine shows an NVIDIA GPU to its processes.
///
/// Then tests are to run on it, and a LibTorch that cannot use it is to be mended; `CUDA_VISIBLE_DEVICES=` hides it.
pub fn gpu_is_visible() -> bool {
    let hidden =
        env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|devices| ["", "-1", "NoDevFiles"].contains(&devices.trim()));
    let listed = || Command::new("nvidia-smi").arg("-L").output().is_ok_and(|out| out.stdout.starts_with(b"GPU "));
    !hidden && (Path::new("/dev/nvidia0").exists() || listed())
}

/// To be the whole of one test, called `this`, in a file whose other tests take the CPU and what `DeviceChoice::Auto` finds:
/// runs them all once more with the stand-in, unless they had a CUDA device already. `cuda_unavailable` is what the crate
/// `libtorch` says.
///
/// # Panics
/// When one fails, or there is no CUDA device where there ought to be one.
pub fn test_again(this: &str, cuda_unavailable: Option<&str>) {
    let Some(reason) = cuda_unavailable else { return };
    assert!(!gpu_is_visible(), "this machine has a GPU that LibTorch cannot use: {reason}");
    assert!(!is_here(), "the stand-in is preloaded, but LibTorch does not see it: {reason}");
    let program = env::current_exe().expect("the running test has a file");
    let output = preload(&mut Command::new(program)).output().expect("the running test can be run again");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let passed = output.status.success() && text.contains(&format!("test {this} ... ok"));
    assert!(passed, "on the stand-in ({}):\n{text}", describe(output.status));
}

/// A signal is how the host's access to the device's memory ends.
fn describe(status: ExitStatus) -> String {
    status.code().map_or_else(|| format!("{status}: the host may have touched the device's memory"), |c| c.to_string())
}
