//! The gradients of several processes added up in buckets, beside the backward pass.

use std::ptr;
use std::time::Duration;

use tch::Tensor;

use crate::Error;
use crate::processes::{Processes, milliseconds};
use crate::shim::{self, CReducer, check, pointers};

/// Adds up the gradients of f32 parameters over processes, which have the same parameters in the same order. While a
/// [`Reducer::begin`] holds, a bucket is begun with as soon as all of its gradients are complete.
#[derive(Debug)]
pub struct Reducer {
    reducer: *mut CReducer,
    parameters: usize,
}

impl Reducer {
    /// For buckets of about so many bytes. Until [`Reducer::arrange`] it only watches. One reducer at a time has a
    /// parameter.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(processes: &Processes, parameters: &[&Tensor], bucket_bytes: usize) -> Result<Self, Error> {
        let (count, length) = (parameters.len(), i64::try_from(bucket_bytes / size_of::<f32>()).unwrap_or(i64::MAX));
        let (parameters, mut reducer) = (pointers(parameters), ptr::null_mut());
        // Safety: all outlive the call, which copies the handles and writes a reducer unless it fails.
        unsafe { check(shim::shim_reducer_new(processes.0, parameters.as_ptr(), count, length, &mut reducer))? };
        Ok(Self { reducer, parameters: count })
    }

    /// The next backward pass is the last one before the gradients are added up.
    ///
    /// # Errors
    /// None in practice.
    pub fn begin(&self) -> Result<(), Error> {
        // Safety: it outlives the call.
        unsafe { check(shim::shim_reducer_begin(self.reducer)) }
    }

    /// The numbers of the parameters that have gradients here, in the order in which these were complete.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn order(&self) -> Result<Vec<i64>, Error> {
        let (mut order, mut count) = (vec![0; self.parameters], 0);
        // Safety: it outlives the call; there is room for each parameter once.
        unsafe { check(shim::shim_reducer_order(self.reducer, order.as_mut_ptr(), &mut count))? };
        order.truncate(count);
        Ok(order)
    }

    /// Puts parameters into buckets, by their numbers in the order in which gradients are complete: the same in all
    /// processes. How often each gradient is added to in a backward pass is taken from the last one.
    ///
    /// # Errors
    /// When a number is no parameter's, or the parameter is not dense or f32.
    pub fn arrange(&self, order: &[i64]) -> Result<(), Error> {
        // Safety: both outlive the call.
        unsafe { check(shim::shim_reducer_arrange(self.reducer, order.as_ptr(), order.len())) }
    }

    /// Begins with what the backward pass has left. The gradients are now parts of the buckets.
    ///
    /// # Errors
    /// When another process is gone.
    pub fn launch_rest(&self) -> Result<(), Error> {
        // Safety: it outlives the call.
        unsafe { check(shim::shim_reducer_launch_rest(self.reducer)) }
    }

    /// Waits for so long at most, or a few times that; returns whether all gradients are sums.
    ///
    /// # Errors
    /// When another process is gone.
    pub fn wait(&self, at_most: Duration) -> Result<bool, Error> {
        let mut ended = false;
        // Safety: both outlive the call.
        unsafe { check(shim::shim_reducer_wait(self.reducer, milliseconds(at_most), &mut ended))? };
        Ok(ended)
    }

    /// How many buckets were begun with during the last backward pass, and how many there are.
    pub fn beside(&self) -> (usize, usize) {
        let (mut beside, mut all) = (0, 0);
        // Safety: all outlive the call.
        unsafe { shim::shim_reducer_beside(self.reducer, &mut beside, &mut all) };
        (beside, all)
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // Safety: it is ours, and used no more.
        unsafe { shim::shim_reducer_free(self.reducer) };
    }
}
