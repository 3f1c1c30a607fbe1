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
    /// DDIM's η (arXiv 2010.02502, equation 16), from 0 to 1: how much of DDPM's noise each step adds; unset, 0.
    // Left out of records of images without, which are older than the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
}
