//! Convolutions.

use libtorch::Weight;
use tch::Tensor;
use weights::{Init, Scope};

/// A square 2-d convolution with `weight` `[out, in, k, k]` and, mostly, `bias` `[out]`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Weight,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// A convolution of stride 1 whose output is as large as its input (`kernel_size` odd).
    pub fn new(vs: &Scope, in_channels: i64, out_channels: i64, kernel_size: i64) -> Self {
        let fan_in = in_channels * kernel_size * kernel_size;
        let weight = vs.weight(&[out_channels, in_channels, kernel_size, kernel_size], Init::FanIn(fan_in));
        let bias = vs.get("bias", &[out_channels], Init::FanIn(fan_in));
        Self { weight, bias: Some(bias), stride: 1, padding: kernel_size / 2 }
    }

    /// A convolution without bias and padding that moves by its own size, as a vision transformer cuts patches. It
    /// starts as CLIP's does.
    pub fn patches(vs: &Scope, in_channels: i64, out_channels: i64, patch_size: i64) -> Self {
        let weight = vs.weight(&[out_channels, in_channels, patch_size, patch_size], Init::Normal(0.02));
        Self { weight, bias: None, stride: patch_size, padding: 0 }
    }

    /// The same convolution with another stride and padding.
    #[must_use]
    pub fn strided(self, stride: i64, padding: i64) -> Self {
        Self { stride, padding, ..self }
    }

    /// Maps [batch, in, height, width] to [batch, out, height', width'].
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        self.weight.conv2d(xs, self.bias.as_ref(), self.stride, self.padding)
    }
}
