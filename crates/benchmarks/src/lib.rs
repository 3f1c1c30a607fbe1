//! Pieces of work to be timed: a step of each stage, a component's pass, sampling, loading, a training run.
//!
//! ```no_run
//! use benchmarks::{Settings, Work, measure};
//!
//! let settings = Settings { batch_size: 8, ..Settings::new("fixtures/miniature".into()) };
//! let measured = measure(Work::Step("attndreambooth", 2), &settings)?;
//! println!("{:?} s a step, {} bytes at most", measured.seconds, measured.peak_memory_bytes);
//! # anyhow::Ok(())
//! ```
//!
//! `python/work.py` does the same work with diffusers, transformers and PyTorch; `cargo xtask bench --compare` runs both
//! interleaved. Each piece of work returns a number, its *check*, which both must agree on: the same work is then
//! compared. [`procedural`] writes models of real size whose weights are random, for speed does not depend on them.
//!
//! Invariants: the product's own code is timed, not a copy of it; inputs derive from fixed seeds; nothing is
//! timed but between two moments when the device's queue is empty.

mod growth;
mod prepared;
pub mod procedural;
mod settings;
mod step;
mod work;

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

pub use growth::draw_growth;
pub use settings::Settings;
pub use work::Work;

/// The times, and what else was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// Of each timed run.
    pub seconds: Vec<f64>,
    /// The value that the first run returned; see the [crate].
    pub check: f64,
    /// The most memory in use at any moment: of tensors on a GPU, of the process on a CPU.
    pub peak_memory_bytes: u64,
    /// From the start of the process to the end of the first training step, for [`Work::Training`].
    pub first_step_seconds: Option<f64>,
}

/// Does `work` as often as `settings` say.
///
/// # Errors
/// When the model cannot do the work, or LibTorch fails.
pub fn measure(work: Work, settings: &Settings) -> Result<Measurement> {
    libtorch::set_tf32(settings.tf32)?;
    let mut prepared = work.prepare(settings)?;
    let mut check = None;
    let mut seconds = Vec::with_capacity(settings.iterations);
    for run in 0..settings.warm_up + settings.iterations {
        libtorch::synchronize(settings.device);
        let start = Instant::now();
        let value = libtorch::catch(|| (prepared.run)())??;
        libtorch::synchronize(settings.device);
        if run >= settings.warm_up {
            seconds.push(start.elapsed().as_secs_f64());
        }
        check.get_or_insert(value);
    }
    Ok(Measurement {
        seconds,
        check: check.map_or(Ok(f64::NAN), |check| libtorch::catch(|| check.double_value(&[])))?,
        peak_memory_bytes: libtorch::peak_memory(settings.device)?,
        first_step_seconds: prepared.first_step.take(),
    })
}
