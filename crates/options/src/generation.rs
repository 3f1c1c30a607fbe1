//! How images are generated.

use serde::{Deserialize, Serialize};

use crate::SchedulerKind;

/// What the images of a batch have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationSettings {
    /// Denoising steps; 50 in the paper's evaluation.
    pub steps: usize,
    /// Classifier-free guidance scale (arXiv 2207.12598); at most 1 means no guidance, at half the cost.
    pub guidance_scale: f64,
    /// Height in pixels, a multiple of the VAE's factor, 8.
    pub height: i64,
    /// Width in pixels, likewise.
    pub width: i64,
    /// Another scheduler than the model's own.
    pub scheduler: Option<SchedulerKind>,
}
