//! LibTorch's exceptions as errors of one sentence.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// What LibTorch refused to do, without its C++ back-trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device or the host has no memory left.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// Any other exception; the text is LibTorch's own first sentence.
    #[error("LibTorch: {0}")]
    Torch(String),
}

/// What LibTorch and the libraries below it say of it, in small letters: CUDA's allocator, the CPU's, cuBLAS and cuDNN without
/// room for their own state, and a convolution for whose every algorithm there is too little.
const WANT_OF_MEMORY: [&str; 5] = [
    "out of memory",
    "can't allocate memory",
    "_status_alloc_failed",
    "device_allocation_failed",
    "unable to find an engine to execute this computation",
];

impl Error {
    pub(crate) fn from_message(message: &str) -> Self {
        let message = first_sentence(message);
        let lower = message.to_lowercase();
        if WANT_OF_MEMORY.iter().any(|words| lower.contains(words)) {
            Self::OutOfMemory(message)
        } else {
            Self::Torch(message)
        }
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        match error {
            tch::TchError::Torch(message) => Self::from_message(&message),
            other => Self::Torch(other.to_string()),
        }
    }
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` and turns a LibTorch exception inside it into an [`Error`].
///
/// `tch` raises exceptions as panics; they are caught here without anything being printed. Any other panic is a bug
/// and goes on unwinding. Calls may nest.
pub fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Error> {
    silence_while_catching();
    let outer = CATCHING.replace(true);
    let gradients = set_gradients(true);
    let _ = set_gradients(gradients);
    // Tensors are reference-counted handles: a half-finished computation leaves none of them in a broken state.
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(outer);
    if result.is_err() {
        // Unwinding has gone past the end of `tch::no_grad`, which would have done it.
        let _ = set_gradients(gradients);
    }
    result.map_err(|payload| match torch_message(payload.as_ref()) {
        Some(message) => Error::from_message(&message),
        None => panic::resume_unwind(payload),
    })
}

/// Whether operations of this thread are recorded for gradients; returns what was before.
fn set_gradients(on: bool) -> bool {
    // Safety: sets a flag of the thread.
    unsafe { torch_sys::at_grad_set_enabled(i32::from(on)) != 0 }
}

/// Wraps the panic hook once so that it says nothing about LibTorch exceptions that [`catch`] is going to return.
fn silence_while_catching() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !(CATCHING.get() && torch_message(info.payload()).is_some()) {
                previous(info);
            }
        }));
    });
}

/// The exception's text in a panic that `tch` raised: an unwrapped `Err(Torch("..."))`.
fn torch_message(payload: &dyn Any) -> Option<String> {
    let text =
        payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied())?;
    let (_, quoted) = text.split_once("Torch(\"")?;
    Some(quoted.trim_end_matches("\")").replace("\\n", "\n").replace("\\\"", "\""))
}

fn first_sentence(message: &str) -> String {
    let cut = ["Exception raised from", "\nframe #", "\nC++ CapturedTraceback"]
        .iter()
        .filter_map(|mark| message.find(mark))
        .min()
        .unwrap_or(message.len());
    message[..cut].split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn a_shape_error_becomes_one_sentence() {
        let a = Tensor::zeros([2, 3], (Kind::Float, tch::Device::Cpu));
        let message = catch(|| a.matmul(&a)).unwrap_err().to_string();
        assert!(message.contains("(2x3 and 2x3)"), "{message}");
        assert!(!message.contains("frame #") && !message.contains('\n'), "{message}");
    }

    #[test]
    fn running_out_of_memory_is_its_own_kind() {
        let huge = || Tensor::empty([1 << 50], (Kind::Float, tch::Device::Cpu));
        assert!(matches!(catch(huge), Err(Error::OutOfMemory(_))));
    }

    #[test]
    fn a_gpus_libraries_say_it_in_other_words() {
        for message in [
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            "GET was unable to find an engine to execute this computation",
            "FIND was unable to find an engine to execute this computation",
        ] {
            assert!(matches!(Error::from_message(message), Error::OutOfMemory(_)), "{message}");
        }
        let other = Error::from_message("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`");
        assert!(matches!(other, Error::Torch(_)), "{other}");
    }

    #[test]
    fn gradients_are_recorded_again_after_an_exception_without_them() {
        let a = Tensor::zeros([2, 3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        assert!(catch(|| tch::no_grad(|| a.matmul(&a))).is_err());
        assert!((&a * 2.0).requires_grad());
        let outer = tch::no_grad_guard();
        assert!(catch(|| tch::with_grad(|| a.matmul(&a))).is_err());
        assert!(!(&a * 2.0).requires_grad());
        drop(outer);
    }

    #[test]
    fn other_panics_go_on() {
        let outcome = panic::catch_unwind(|| catch(|| panic!("a bug")));
        assert!(outcome.is_err());
    }
}
