//! Work that is ready to be timed, and its inputs.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::Result;
use libtorch::random;
use tch::{Kind, Tensor};

use crate::settings::Settings;

/// Work whose preparations are done.
pub(crate) struct Prepared {
    /// Does it once; returns the check, of shape [].
    pub(crate) run: Box<dyn FnMut() -> Result<Tensor>>,
    /// When the first step of a run was done, in seconds since the start of the process.
    pub(crate) first_step: Rc<Cell<Option<f64>>>,
}

impl Prepared {
    pub(crate) fn new(run: impl FnMut() -> Result<Tensor> + 'static) -> Self {
        Self { run: Box::new(run), first_step: Rc::default() }
    }
}

/// The mean of absolute values, as a check.
pub(crate) fn size(xs: &Tensor) -> Tensor {
    xs.abs().mean(Kind::Float)
}

/// [batch, 3, side, side], uniform in [-1, 1), f32 on the CPU.
pub(crate) fn images(settings: &Settings) -> Result<Tensor> {
    let side = settings.side()?;
    Ok(random::uniform(3, &[settings.batch_size, 3, side, side]) * 2.0 - 1.0)
}

/// [batch, channels, side / 8, side / 8], standard normal, f32 on the CPU.
pub(crate) fn latents(settings: &Settings, channels: i64) -> Result<Tensor> {
    let side = settings.side()? / 8;
    Ok(random::normal(1, &[settings.batch_size, channels, side, side]))
}

/// `[batch]`, int64: spread over the schedule.
pub(crate) fn timesteps(batch: i64) -> Tensor {
    let each: Vec<i64> = (1..=batch).map(|i| 1000 * i / (batch + 1)).collect();
    Tensor::from_slice(&each)
}
