//! Copies to and from a GPU that do not wait for the work that it still has to do.

use std::ptr;

use tch::{Device, Tensor};

use crate::Error;
use crate::shim::{self, CudaEvent, check, made, or_panic};

/// `tensor` on `device`. A copy to a GPU is queued there, from page-locked memory, and not waited for; the plain
/// `Tensor::to_device` waits until the GPU has done all that was asked of it before.
///
/// # Panics
/// As `Tensor::to_device`, when memory runs out; see [`catch`](crate::catch).
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    match (tensor.device(), device) {
        (Device::Cpu, Device::Cuda(index)) => {
            let index = i8::try_from(index).unwrap_or(i8::MAX);
            // Safety: `tensor` outlives the call, which writes a new tensor unless it fails.
            or_panic(unsafe { made(|copy| shim::shim_upload(tensor.as_ptr(), index, copy)) })
        }
        _ => tensor.to_device(device),
    }
}

/// Numbers on their way from their device.
#[derive(Debug)]
pub struct Download {
    numbers: Tensor,
    arrived: Option<Event>,
}

impl Download {
    /// Asks for the numbers of `tensor`, as they are when all that was asked of its device before is done. What is asked
    /// of it afterwards does not delay them.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(tensor: &Tensor) -> Result<Self, Error> {
        let kind = tensor.kind();
        let numbers = crate::catch(|| tensor.to_device_(Device::Cpu, kind, /* non_blocking: */ true, false))?;
        let arrived = match tensor.device() {
            Device::Cuda(index) => Some(Event::record(index)?),
            _ => None,
        };
        Ok(Self { numbers, arrived })
    }

    /// Waits for them; all in one row.
    ///
    /// # Errors
    /// When the device has failed in the meantime.
    pub fn wait(&self) -> Result<Vec<f64>, Error> {
        if let Some(arrived) = &self.arrived {
            arrived.wait()?;
        }
        Ok(crate::catch(|| Vec::<f64>::try_from(self.numbers.flatten(0, -1)))??)
    }
}

/// A point in the queue of a GPU's current stream.
#[derive(Debug)]
struct Event(*mut CudaEvent);

// Safety: CUDA's events belong to no thread.
unsafe impl Send for Event {}

impl Event {
    fn record(device: usize) -> Result<Self, Error> {
        let mut event = ptr::null_mut();
        // LibTorch counts devices in an i8.
        let index = i8::try_from(device).unwrap_or(i8::MAX);
        // Safety: `event` is written to, if at all, with what `shim_event_free` is for.
        unsafe { check(shim::shim_event_record(index, &raw mut event))? };
        Ok(Self(event))
    }

    fn wait(&self) -> Result<(), Error> {
        // Safety: the event lives until it is dropped.
        unsafe { check(shim::shim_event_wait(self.0)) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // Safety: made by `shim_event_record` and freed nowhere else.
        unsafe { shim::shim_event_free(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda_unavailable;

    #[test]
    fn numbers_go_and_come_back_in_their_order() {
        let devices = [Some(Device::Cpu), cuda_unavailable().is_none().then_some(Device::Cuda(0))];
        for device in devices.into_iter().flatten() {
            let numbers: Vec<f32> = (0..1000).map(|i| i as f32).collect();
            let there = upload(&Tensor::from_slice(&numbers).reshape([10, 100]), device);
            assert_eq!((there.device(), there.size()), (device, vec![10, 100]));
            // One number many times, as a view.
            let same = upload(&Tensor::from(7.0f32).expand([4], false), device);
            assert_eq!(Download::new(&same).unwrap().wait().unwrap(), [7.0; 4]);
            let download = Download::new(&(&there * 2.0)).unwrap();
            let later = &there + 1.0;
            let expected: Vec<f64> = numbers.iter().map(|&x| f64::from(2.0 * x)).collect();
            assert_eq!(download.wait().unwrap(), expected);
            assert_eq!(Download::new(&later).unwrap().wait().unwrap()[999], 1000.0);
        }
    }
}
