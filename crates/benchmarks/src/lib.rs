//! Pieces of work to be timed: a step of each stage, a component's pass, sampling, loading, a whole run.
//!
//! ```no_run
//! use benchmarks::{Settings, Work, measure};
//!
//! let settings = Settings { batch_size: 8, ..Settings::new("fixtures/miniature".into()) };
//! let measured = measure(Work::UnetStep, &settings)?;
//! println!("{:?} s a step, {} bytes at most", measured.seconds, measured.peak_memory_bytes);
//! # anyhow::Ok(())
//! ```
//!
//! `python/work.py` does the same work with diffusers, transformers and PyTorch; `cargo xtask bench --compare` runs both
//! by turns. Each piece of work returns a number, its *check*, which both must agree on: what is compared is then the
//! same work. [`procedural`] writes models of real size whose weights are random, for speed does not depend on them.
//!
//! Invariants: what is timed is what the product runs, not a copy of it; inputs derive from fixed seeds; nothing is
//! timed but between two moments when the device's queue is empty.

mod growth;
pub mod procedural;
mod step;
mod work;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use tch::{Device, Kind};

pub use growth::draw_growth;
pub use work::Work;

/// What to time the work on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A model in the diffusers layout; for [`Work::Features`] the folder of a CLIP.
    pub model: PathBuf,
    /// For [`Work::Features`]: the folder with pictures. For [`Work::Recipe`]: that with photos of the subject.
    pub pictures: PathBuf,
    /// For [`Work::Recipe`]: the word for what the subject is.
    pub category: String,
    /// For [`Work::Recipe`]: values of the configuration that are other than the recipe's, as `unet.steps` and `10`.
    pub changes: Vec<(String, String)>,
    /// What to compute in. Parameters are f32 in training, and else of this kind too.
    pub kind: Kind,
    /// On a GPU: f32 factors may be rounded to TF32.
    pub tf32: bool,
    /// Where to compute.
    pub device: Device,
    /// Samples at once; [`Work::Recipe`] has its own, among `changes`.
    pub batch_size: i64,
    /// Side of the pictures in pixels; what the model was trained for if none is given.
    pub resolution: Option<i64>,
    /// Denoising steps of [`Work::Sampling`].
    pub steps: usize,
    /// For training: activations are computed again in the backward pass.
    pub gradient_checkpointing: bool,
    /// Runs before the clock starts.
    pub warm_up: usize,
    /// Runs that are timed.
    pub iterations: usize,
}

impl Settings {
    /// Whether there is training in this kind.
    pub(crate) fn check_trains(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.kind != Kind::Half, "training is timed in fp32, tf32 or bf16; there is none in fp16");
        Ok(())
    }

    /// One sample at a time in f32 on the CPU, timed three times after a run to warm up.
    pub fn new(model: PathBuf) -> Self {
        Self {
            model,
            pictures: PathBuf::new(),
            category: String::new(),
            changes: Vec::new(),
            kind: Kind::Float,
            tf32: false,
            device: Device::Cpu,
            batch_size: 1,
            resolution: None,
            steps: 50,
            gradient_checkpointing: false,
            warm_up: 1,
            iterations: 3,
        }
    }
}

/// How long it took.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// Of each timed run.
    pub seconds: Vec<f64>,
    /// What the first run returned; see the [crate].
    pub check: f64,
    /// The most memory in use at any moment: of tensors on a GPU, of the process on a CPU.
    pub peak_memory_bytes: u64,
    /// From the start of the process to the end of the first training step, for [`Work::Recipe`].
    pub first_step_seconds: Option<f64>,
}

/// Does `work` as often as `settings` say.
///
/// # Errors
/// When the model cannot do the work, or what LibTorch refuses.
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
