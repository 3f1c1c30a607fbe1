//! LibTorch's switches that `tch` does not reach. They act on the whole process.

use crate::Error;
use crate::shim::{self, check};

/// Lets f32 matrix products and convolutions on a GPU round their factors to TF32 (10 bits of mantissa), several
/// times as fast. LibTorch starts with TF32 in convolutions only. Without effect on a CPU.
///
/// # Errors
/// When LibTorch refuses.
pub fn set_tf32(allowed: bool) -> Result<(), Error> {
    // Safety: plain values.
    unsafe { check(shim::shim_set_tf32(allowed)) }
}

/// Makes every operation give the same bits each time, at some cost in speed; one that cannot is an error when it is
/// used.
///
/// To be called before the GPU is first used, since cuBLAS reads its workspace's size only then.
///
/// # Errors
/// When LibTorch refuses.
pub fn set_deterministic(on: bool) -> Result<(), Error> {
    // Safety: plain values.
    unsafe { check(shim::shim_set_deterministic(on)) }
}
