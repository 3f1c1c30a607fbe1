//! Operations on all parameters of a model in one call.

use std::ptr;

use tch::Tensor;

use crate::Error;
use crate::shim::{self, check, made, pointers};

/// A parameter, its gradient, and its state in [`fused_adamw`]; all f32, of one shape, on one device.
#[derive(Debug, Clone, Copy)]
pub struct AdamWSlot<'a> {
    /// What is trained.
    pub parameter: &'a Tensor,
    /// Its gradient; only this one may be laid out otherwise in memory.
    pub gradient: &'a Tensor,
    /// The first moment.
    pub exp_avg: &'a Tensor,
    /// The second moment.
    pub exp_avg_sq: &'a Tensor,
    /// The number of steps so far, one f32.
    pub step: &'a Tensor,
}

/// The numbers of [`fused_adamw`] that are the same for all parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWRule {
    /// The learning rate.
    pub learning_rate: f64,
    /// How slowly the first moment forgets.
    pub beta1: f64,
    /// How slowly the second moment forgets.
    pub beta2: f64,
    /// What part of a parameter decays per step, as a multiple of the learning rate.
    pub weight_decay: f64,
    /// What is added to the denominator.
    pub eps: f64,
}

/// One step of AdamW (arXiv 1711.05101) for all parameters, in place, by LibTorch's fused kernels: one pass over the
/// memory, and a handful of kernel launches on a GPU whatever the number of parameters.
///
/// Counts the step, so that the first call makes it 1. Does nothing else with the gradients; see [`clear_grads`].
/// Where `skipped`, an f32 of shape [] on the same device, is 1, nothing is changed or counted; it is not waited for.
///
/// # Errors
/// When a tensor has another dtype, device, shape or layout than its parameter; then nothing was changed.
pub fn fused_adamw(slots: &[AdamWSlot<'_>], rule: &AdamWRule, skipped: Option<&Tensor>) -> Result<(), Error> {
    let pointers: Vec<[_; 5]> =
        slots.iter().map(|s| [s.parameter, s.gradient, s.exp_avg, s.exp_avg_sq, s.step].map(Tensor::as_ptr)).collect();
    let &AdamWRule { learning_rate, beta1, beta2, weight_decay, eps } = rule;
    let (slots, count) = (pointers.as_ptr(), pointers.len());
    let skipped = skipped.map_or(ptr::null(), Tensor::as_ptr);
    // Safety: the tensors live in the arguments during the call.
    unsafe { check(shim::shim_fused_adamw(slots, count, learning_rate, beta1, beta2, weight_decay, eps, skipped)) }
}

/// The 2-norm of all numbers in `gradients` together, of shape [] on their device, which is not waited for.
///
/// # Errors
/// When there are none, or they are on different devices.
pub fn grad_norm(gradients: &[&Tensor]) -> Result<Tensor, Error> {
    let pointers = pointers(gradients);
    // Safety: the tensors live in `gradients` during the call, which makes a new tensor unless it fails.
    unsafe { made(|norm| shim::shim_global_norm(pointers.as_ptr(), pointers.len(), norm)) }
}

/// Multiplies all of `gradients`, in place, by `factor` of shape [] on their device.
///
/// # Errors
/// When there are none, or a device or shape does not fit.
pub fn scale_all(gradients: &[&Tensor], factor: &Tensor) -> Result<(), Error> {
    let pointers = pointers(gradients);
    // Safety: the tensors live in the arguments during the call.
    unsafe { check(shim::shim_scale_all(pointers.as_ptr(), pointers.len(), factor.as_ptr())) }
}

/// Takes the gradients of `parameters` away and frees their memory, as Python's `parameter.grad = None`; afterwards
/// `grad().defined()` is false. (`tch`'s `zero_grad` would keep them, full of zeros.)
///
/// # Errors
/// None that is known.
pub fn clear_grads(parameters: &[&Tensor]) -> Result<(), Error> {
    let pointers = pointers(parameters);
    // Safety: the tensors live in `parameters` during the call.
    unsafe { check(shim::shim_clear_grads(pointers.as_ptr(), pointers.len())) }
}
