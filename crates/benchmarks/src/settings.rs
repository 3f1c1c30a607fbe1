//! What work is timed on.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use sampling::ModelFolder;
use tch::{Device, Kind};

/// What the work is timed on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A model in the diffusers layout; for [`Work::Features`](crate::Work::Features) the folder of a CLIP.
    pub model: PathBuf,
    /// For [`Work::Features`](crate::Work::Features): the folder with images. For [`Work::Training`](crate::Work::Training): that with photos of the subject.
    pub images: PathBuf,
    /// For [`Work::Training`](crate::Work::Training): the class noun of the subject.
    pub category: String,
    /// For [`Work::Training`](crate::Work::Training): values of the configuration other than the preset's, as `phases.unet.steps` and `10`.
    pub changes: Vec<(String, String)>,
    /// The dtype of computation. Parameters are f32 in training, and of this dtype otherwise.
    pub kind: Kind,
    /// On a GPU: f32 factors may be rounded to TF32.
    pub tf32: bool,
    /// Where to compute.
    pub device: Device,
    /// Samples at once; [`Work::Training`](crate::Work::Training) has its own, among `changes`.
    pub batch_size: i64,
    /// Side of the images in pixels; by default the one that the model was trained for.
    pub resolution: Option<i64>,
    /// Denoising steps of [`Work::Sampling`](crate::Work::Sampling).
    pub steps: usize,
    /// For training: activations are computed again in the backward pass.
    pub gradient_checkpointing: bool,
    /// Runs before the clock starts.
    pub warm_up: usize,
    /// Runs that are timed.
    pub iterations: usize,
}

impl Settings {
    /// Checks that training is possible in this dtype.
    pub(crate) fn check_trains(&self) -> Result<()> {
        ensure!(self.kind != Kind::Half, "training is timed in fp32, tf32 or bf16; there is none in fp16");
        Ok(())
    }

    /// One sample at a time in f32 on the CPU, timed three times after a run to warm up.
    pub fn new(model: PathBuf) -> Self {
        Self {
            model,
            images: PathBuf::new(),
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

    /// The side of the images.
    pub(crate) fn side(&self) -> Result<i64> {
        self.resolution.map_or_else(|| ModelFolder::open(&self.model)?.image_size(), Ok)
    }
}
