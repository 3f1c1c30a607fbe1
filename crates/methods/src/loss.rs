//! The terms of a loss.

use tch::Tensor;

/// How the terms of a step's batches become one where gradients are accumulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The term is a mean over samples: the step's is the mean over its batches.
    Mean,
    /// The term is a sum over samples: the step's is the sum over its batches.
    Sum,
}

/// A named part of a loss.
#[derive(Debug)]
pub struct LossTerm {
    /// Its name in logs, which adds `_loss`.
    pub name: &'static str,
    /// With its weight: of shape [], f32, on the autograd graph.
    pub value: Tensor,
    /// How it adds up over the batches of a step.
    pub reduction: Reduction,
}

impl LossTerm {
    /// The name of the diffusion loss of the subject's samples.
    pub const DIFFUSION: &str = "diffusion";

    /// A term that is a mean over samples.
    pub fn mean(name: &'static str, value: Tensor) -> Self {
        Self { name, value, reduction: Reduction::Mean }
    }
}
