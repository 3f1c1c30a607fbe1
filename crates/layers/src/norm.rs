//! Normalisations.

use tch::Tensor;
use weights::{Init, Scope};

use crate::Activation;

/// Normalises over groups of channels and all pixels.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// `groups` must divide `channels`.
    pub fn new(vs: &Scope, groups: i64, channels: i64, eps: f64) -> Self {
        let weight = vs.get("weight", &[channels], Init::Const(1.0));
        let bias = vs.get("bias", &[channels], Init::Const(0.0));
        Self { weight, bias, groups, eps }
    }

    /// Maps [batch, channels, ...] to the same shape.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        libtorch::group_norm(xs, self.groups, &self.weight, &self.bias, self.eps, false)
    }

    /// The activation of what [`GroupNorm::forward`] gives.
    pub fn forward_activated(&self, xs: &Tensor, activation: Activation) -> Tensor {
        match activation {
            Activation::Silu => libtorch::group_norm(xs, self.groups, &self.weight, &self.bias, self.eps, true),
            other => other.apply(&self.forward(xs)),
        }
    }
}

/// Normalises over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Over a last dimension of size `dim`.
    pub fn new(vs: &Scope, dim: i64, eps: f64) -> Self {
        Self { weight: vs.get("weight", &[dim], Init::Const(1.0)), bias: vs.get("bias", &[dim], Init::Const(0.0)), eps }
    }

    /// Maps [..., dim] to the same shape.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        let kind = xs.kind();
        let (weight, bias) = (self.weight.to_kind(kind), self.bias.to_kind(kind));
        xs.layer_norm(weight.size(), Some(&weight), Some(&bias), self.eps, false)
    }
}
