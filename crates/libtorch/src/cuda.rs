//! CUDA at run time.
//!
//! Programs link `libtorch_cpu` alone. On a machine whose LibTorch has `libtorch_cuda`, opening that library before
//! the first use registers the CUDA kernels, exactly as if it had been linked. Where a library in the process has done so
//! already, because somebody linked it or had it preloaded, nothing is opened.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::shim::shim_cuda_registered;

/// `None` when CUDA can be used, else the sentence that says why not.
///
/// The library is opened by the first call, and never again. Nothing else in this crate asks LibTorch for CUDA, which looks
/// once and remembers that there was none; a caller who asks it otherwise, as [`tch::Cuda`] and [`tch::manual_seed`] do, is to
/// call this first.
pub fn cuda_unavailable() -> Option<&'static str> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    REASON.get_or_init(look_for_cuda).as_deref()
}

/// Of these a running driver shows one: on Linux, in containers, in Windows' Linux.
const DRIVER: [&str; 4] = ["/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"];

fn look_for_cuda() -> Option<String> {
    // Safety: reads LibTorch's registry.
    if unsafe { shim_cuda_registered() } {
        return no_gpu();
    }
    if !DRIVER.iter().any(|path| Path::new(path).exists()) {
        // The library is large, and of no use then.
        return Some("this machine has no running NVIDIA driver, which CUDA needs".to_owned());
    }
    // Not one question to LibTorch before its library is open, which lies beside the libtorch_cpu that is really loaded
    // (behind any links), else wherever the loader looks.
    let beside = loaded_library_dir().map(|dir| dir.join("libtorch_cuda.so")).filter(|path| path.exists());
    let library = beside.unwrap_or_else(|| PathBuf::from("libtorch_cuda.so"));
    if let Err(reason) = open_library(&library) {
        return Some(format!("this LibTorch has no usable CUDA library ({reason})"));
    }
    open_runtime_compilers(&library);
    no_gpu()
}

fn no_gpu() -> Option<String> {
    (!tch::Cuda::is_available()).then(|| "LibTorch's CUDA library finds no working GPU or driver".to_owned())
}

/// Of the Python wheels, cuDNN and LibTorch open the runtime compiler by its bare name when they first need it, and do not
/// find the folder that it came in; Python's torch opens it before, and so do we. Where it is missing, or beside LibTorch,
/// there is nothing to do.
fn open_runtime_compilers(library: &Path) {
    let site = library.ancestors().nth(3).unwrap_or(Path::new(""));
    let packages = std::fs::read_dir(site.join("nvidia")).into_iter().flatten().filter_map(Result::ok);
    for package in packages {
        let files = std::fs::read_dir(package.path().join("lib")).into_iter().flatten().filter_map(Result::ok);
        let compiler = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libnvrtc") && !name.contains(".alt.")
        };
        for path in files.map(|file| file.path()).filter(compiler) {
            // What needs it will say so.
            let _ = open_library(&path);
        }
    }
}

/// The folder of the `libtorch_cpu` in this process.
fn loaded_library_dir() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // Safety: `dladdr` fills `info` when it returns non-zero; the name it points to lives as long as the library.
    let name = unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"_ZN2at13globalContextEv".as_ptr());
        if symbol.is_null() || libc::dladdr(symbol, info.as_mut_ptr()) == 0 {
            return None;
        }
        let info = info.assume_init();
        CStr::from_ptr(info.dli_fname)
    };
    let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
    path.canonicalize().ok()?.parent().map(Path::to_owned)
}

fn open_library(path: &Path) -> Result<(), String> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // Safety: the library's initialisers only register operators; the handle is never closed.
    unsafe {
        if libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            let message = libc::dlerror();
            return Err(if message.is_null() {
                "dlopen failed".to_owned()
            } else {
                CStr::from_ptr(message).to_string_lossy().into_owned()
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cuda_device_passes_these_tests() {
        cuda_standin::test_again("cuda::tests::a_cuda_device_passes_these_tests", cuda_unavailable());
    }
}
