//! The seam to LibTorch.
//!
//! Everything that `tch` leaves out and everything `unsafe` lives here, so that no other crate needs either:
//!
//! - [`resolve`]: the device of `auto | cpu | cuda[:N]`, with CUDA looked for at run time ([`cuda_unavailable`]).
//! - [`catch`]: turns a LibTorch exception (which `tch` raises as a panic) into an [`Error`] of one sentence.
//! - [`MappedFile`], [`tensor_from_bytes`], [`HostBytes`]: tensors from and to raw memory, one copy and no more.
//! - [`random`]: draws that depend on nothing but their seed.
//! - [`fused_adamw`], [`grad_norm`], [`scale_all`], [`clear_grads`]: all parameters of a model in one call.
//! - [`set_tf32`], [`set_deterministic`], [`peak_memory`], [`keep_freed_memory`]: LibTorch's switches and gauges.
//! - [`Weight`], [`Frozen`]: layers' weights, kept in the layout that a CPU computes with.
//! - [`Store`], [`Processes`], [`Reducer`]: what several processes share, and gradients added up over them (c10d).
//! - [`group_norm`], [`geglu`], [`softmax_scores`]: several operations in one walk through memory, on a CPU.
//! - [`checkpoint`]: computing activations again in the backward pass instead of keeping them.
//!
//! What `tch` lacks goes through a small C++ shim (`shim/`), which uses `libtorch_cpu` and `libc10` alone.
//!
//! ```
//! use libtorch::random;
//!
//! let device = libtorch::resolve("auto".parse()?)?;
//! let noise = random::normal(42, &[1, 4, 8, 8]).to_device(device);
//! assert_eq!(noise.size(), [1, 4, 8, 8]);
//!
//! let error = libtorch::catch(|| noise.matmul(&noise.narrow(1, 0, 1).reshape([64, 1]))).unwrap_err();
//! assert!(!error.to_string().contains("frame #"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: the only crate with `unsafe`; knows nothing of models or files' formats; links no CUDA library, so
//! one binary serves machines with and without a GPU.

#![allow(unsafe_code)]

mod bytes;
mod checkpoint;
mod cuda;
mod device;
mod error;
mod foreach;
mod fused;
mod mapped;
mod memory;
mod packed;
mod processes;
pub mod random;
mod reducer;
mod shim;
mod switches;
mod transfer;

pub use bytes::{HostBytes, tensor_from_bytes};
pub use checkpoint::checkpoint;
pub use cuda::cuda_unavailable;
pub use device::{DeviceError, kind, resolve, synchronize};
pub use error::{Error, catch};
pub use foreach::{AdamWRule, AdamWSlot, clear_grads, fused_adamw, grad_norm, scale_all};
pub use fused::{geglu, group_norm, softmax_scores};
pub use mapped::MappedFile;
pub use memory::{
    available_memory, half_of_memory_beyond, keep_freed_memory, peak_memory, release_cached_memory, reset_peak_memory,
    total_memory,
};
pub use options::{DeviceChoice, Dtype};
pub use packed::{Frozen, Weight};
pub use processes::{Pending, Processes, Store};
pub use reducer::Reducer;
pub use switches::{set_deterministic, set_tf32};
pub use transfer::{Download, upload};

/// The LibTorch release that this workspace is built against.
pub const LIBTORCH_VERSION: &str = "2.11.0";
