//! What all schedulers share: the trait, and the checks of a step's tensors.

use std::fmt::Debug;

use tch::{Kind, Tensor};

use crate::Error;

/// A sampler: from noise to latents, one model call a step.
///
/// Steps are named by their index into [`timesteps`](Self::timesteps), never by the timestep itself, which may repeat
/// (PNDM) or be a fraction (Euler).
pub trait Scheduler: Debug + Send {
    /// The timestep of every model call, in order, as the U-Net takes it. May be more than the steps asked for (PNDM).
    fn timesteps(&self) -> &[f32];

    /// The standard deviation of the noise that sampling starts from: multiply a standard normal tensor by it.
    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    /// What the model is given in place of `sample` at step `index`.
    fn scale_model_input(&self, index: usize, sample: &Tensor) -> Tensor {
        let _ = index;
        sample.shallow_clone()
    }

    /// Whether step `index` adds noise.
    fn needs_noise(&self, index: usize) -> bool {
        let _ = index;
        false
    }

    /// The sample after step `index`, in `sample`'s shape, dtype and device.
    ///
    /// `model_output` is the model's answer to [`scale_model_input`](Self::scale_model_input) at `timesteps()[index]`;
    /// `noise`, a standard normal tensor, is read only where [`needs_noise`](Self::needs_noise) says so. All three have
    /// `sample`'s shape and device. Step 0 forgets earlier runs.
    ///
    /// # Errors
    /// No such step, steps out of order (PNDM), shapes or devices that differ, or noise missing.
    fn step(
        &mut self,
        index: usize,
        model_output: &Tensor,
        sample: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor, Error>;
}

/// The tensors of one step, checked and in f32.
pub(crate) struct Inputs {
    pub(crate) output: Tensor,
    pub(crate) sample: Tensor,
    index: usize,
    kind: Kind,
}

impl Inputs {
    pub(crate) fn new(index: usize, len: usize, output: &Tensor, sample: &Tensor) -> Result<Self, Error> {
        if index >= len {
            return Err(Error::NoSuchStep { index, len });
        }
        ensure_alike("the model output", output, sample)?;
        let [output, in_f32] = [output, sample].map(|tensor| tensor.to_kind(Kind::Float));
        Ok(Self { output, sample: in_f32, index, kind: sample.kind() })
    }

    pub(crate) fn noise(&self, noise: Option<&Tensor>) -> Result<Tensor, Error> {
        let noise = noise.ok_or(Error::NoNoise { index: self.index })?;
        ensure_alike("the noise", noise, &self.sample)?;
        Ok(noise.to_kind(Kind::Float))
    }

    /// `result` in the dtype that the sample came in.
    pub(crate) fn finish(&self, result: &Tensor) -> Tensor {
        result.to_kind(self.kind)
    }
}

/// Checks that two tensors can be combined element by element.
pub(crate) fn ensure_alike(what: &'static str, tensor: &Tensor, sample: &Tensor) -> Result<(), Error> {
    if tensor.size() != sample.size() {
        Err(Error::Shape { what, actual: tensor.size(), expected: sample.size() })
    } else if tensor.device() != sample.device() {
        Err(Error::Device { what, actual: tensor.device(), expected: sample.device() })
    } else {
        Ok(())
    }
}
