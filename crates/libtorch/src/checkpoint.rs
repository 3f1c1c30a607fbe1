//! Gradient checkpointing: computing activations again instead of keeping them (arXiv 1604.06174).

use std::any::Any;
use std::ffi::{c_char, c_void};
use std::mem::ManuallyDrop;
use std::panic::{self, AssertUnwindSafe};
use std::slice;
use std::sync::{Mutex, PoisonError};

use tch::Tensor;
use torch_sys::{C_tensor, at_grad_set_enabled};

use crate::shim::{check, or_panic, pointers, shim_checkpoint};
use crate::{Error, catch};

/// What C++ holds. LibTorch may call it from any thread (with a GPU, the backward pass runs on threads of its own) and
/// from several at once, which a closure that is `Send` allows behind a mutex.
type Segment = Mutex<Box<dyn Fn(&[Tensor]) -> Vec<Tensor> + Send>>;

/// Runs `segment` and keeps nothing of it but its inputs and outputs; the backward pass runs it again, to have its
/// activations for just as long as it takes to go back through them.
///
/// The gradients are those that `segment(inputs)` itself would give, to the inputs and to all parameters that the
/// closure has captured. There are outputs with and without gradients, as without checkpointing; when none needs any,
/// or gradients are off ([`tch::no_grad`]), there is nothing more to this than the call. Segments may contain others.
///
/// - What the closure captures must be parameters or need no gradients: what was computed from parameters belongs
///   into `inputs`.
/// - The segment must compute the same each time: it may draw no random numbers but from a seed of its own, nor depend
///   on a setting such as [`tch::autocast`] that is another by the time of the backward pass.
/// - `tch`'s `backward` goes through segments; `run_backward`, which chooses what to differentiate by, cannot.
/// - When the segment panics during the backward pass, that fails as if LibTorch had refused: `catch` has the error.
///
/// The closure is dropped when the graph is freed, after `backward` or with the last output, by whichever thread does
/// that.
///
/// # Panics
/// When the segment does, and as `tch` when memory runs out.
///
/// ```
/// use tch::{Kind, Tensor};
///
/// let x = Tensor::from(2.0).set_requires_grad(true);
/// let y = libtorch::checkpoint(&[&x], |xs| vec![xs[0].square().exp()]);
/// y[0].backward();
/// assert_eq!(x.grad(), Tensor::from(4.0 * 4f64.exp()));
/// ```
pub fn checkpoint(inputs: &[&Tensor], segment: impl Fn(&[Tensor]) -> Vec<Tensor> + Send + 'static) -> Vec<Tensor> {
    if !gradients_are_on() {
        let inputs: Vec<Tensor> = inputs.iter().map(|input| input.shallow_clone()).collect();
        return segment(&inputs);
    }
    // With a graph, though it is dropped at once: only it knows which outputs need gradients. At this point it takes no
    // more memory than it will in the backward pass.
    let leaves: Vec<Tensor> =
        inputs.iter().map(|input| input.detach().set_requires_grad(input.requires_grad())).collect();
    let mut outputs = segment(&leaves);
    if outputs.iter().any(Tensor::requires_grad) {
        let segment: Box<Segment> = Box::new(Mutex::new(Box::new(segment)));
        let given = pointers(inputs);
        let made: Vec<*mut C_tensor> = outputs.iter_mut().map(Tensor::as_mut_ptr).collect();
        // Safety: the tensors live in `inputs` and `outputs` during the call. The segment is C++'s from here on; `run`
        // and `drop_segment` fit it, and what they need of threads is said at `Segment`.
        or_panic(unsafe {
            let segment = Box::into_raw(segment).cast();
            check(shim_checkpoint(given.as_ptr(), given.len(), made.as_ptr(), made.len(), segment, run, drop_segment))
        });
    }
    outputs
}

/// Whether operations are recorded for gradients, on this thread.
pub(crate) fn gradients_are_on() -> bool {
    // Safety: plain values. LibTorch tells the old setting only to those who make a new one.
    unsafe {
        let on = at_grad_set_enabled(0);
        at_grad_set_enabled(on);
        on == 1
    }
}

/// Runs a segment for the backward pass.
///
/// # Safety
/// As [`crate::shim::RunSegment`] says, with a [`Segment`].
unsafe extern "C" fn run(
    segment: *mut c_void,
    inputs: *const *mut C_tensor,
    input_count: usize,
    outputs: *mut *mut C_tensor,
    output_count: usize,
) -> *mut c_char {
    let compute = || {
        // Safety: C++ keeps the segment and the inputs during the call.
        let (segment, inputs) = unsafe { (&*segment.cast::<Segment>(), borrowed(inputs, input_count)) };
        let inputs: Vec<Tensor> = inputs.iter().map(|&input| unsafe { Tensor::clone_from_ptr(input) }).collect();
        segment.lock().unwrap_or_else(PoisonError::into_inner)(&inputs)
    };
    // Nothing may unwind into C++. What a panic leaves behind is the closure's own, which may be called again.
    let message = match panic::catch_unwind(AssertUnwindSafe(|| catch(compute))) {
        Ok(Ok(computed)) if computed.len() == output_count => {
            for (i, tensor) in computed.into_iter().enumerate() {
                // Safety: there is room for `output_count`, and C++ takes the tensor over.
                unsafe { *outputs.add(i) = ManuallyDrop::new(tensor).as_mut_ptr() };
            }
            return std::ptr::null_mut();
        }
        Ok(Ok(computed)) => {
            format!("a checkpointed segment gave {output_count} tensors at first and {} when run again", computed.len())
        }
        Ok(Err(Error::OutOfMemory(message) | Error::Torch(message))) => message,
        Err(payload) => format!("a checkpointed segment panicked when run again: {}", text(payload.as_ref())),
    };
    let message = message.replace('\0', "") + "\0";
    // Safety: it ends with a zero.
    unsafe { libc::strdup(message.as_ptr().cast()) }
}

/// A C array as a slice; an empty one may be null.
///
/// # Safety
/// As [`slice::from_raw_parts`].
unsafe fn borrowed<'a, T>(start: *const T, count: usize) -> &'a [T] {
    // Safety: what the caller promises.
    if count == 0 { &[] } else { unsafe { slice::from_raw_parts(start, count) } }
}

/// # Safety
/// `segment` must be a [`Segment`] out of its box, and be used no more.
unsafe extern "C" fn drop_segment(segment: *mut c_void) {
    // Safety: what the caller promises. A panic has nobody left to tell.
    let _ = panic::catch_unwind(|| drop(unsafe { Box::from_raw(segment.cast::<Segment>()) }));
}

fn text(payload: &dyn Any) -> &str {
    let string = payload.downcast_ref::<String>().map(String::as_str);
    string.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no reason was given")
}
