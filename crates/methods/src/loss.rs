//! The terms of a loss.

use tch::Tensor;

/// How several terms become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// By their mean.
    Mean,
    /// By their sum.
    Sum,
}

/// A named part of a loss.
#[derive(Debug)]
pub struct LossTerm {
    /// Its name in logs, which adds `_loss`.
    pub name: &'static str,
    /// With its weight: of shape [], f32, on the autograd graph.
    pub value: Tensor,
    /// How those of a batch's samples have become it: by this it is put together where several processes share a batch.
    pub of_samples: Reduction,
    /// How those of the batches of a step become one where gradients are accumulated.
    pub of_batches: Reduction,
}

impl LossTerm {
    /// The name of the diffusion loss of the subject's samples.
    pub const DIFFUSION: &str = "diffusion";

    /// A term that is a mean over samples, however many batches have them.
    pub fn mean(name: &'static str, value: Tensor) -> Self {
        Self { name, value, of_samples: Reduction::Mean, of_batches: Reduction::Mean }
    }
}
