//! Convolutions.

use libtorch::Weight;
use tch::Tensor;
use weights::{Init, Scope};

use crate::{AdapterSlot, LinearAdapter};

/// A square 2-d convolution with `weight` `[out, in, k, k]` and, mostly, `bias` `[out]`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Weight,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
    adapter: AdapterSlot,
}

impl Conv2d {
    /// A convolution of stride 1 whose output is as large as its input (`kernel_size` odd).
    pub fn new(vs: &Scope, in_channels: i64, out_channels: i64, kernel_size: i64) -> Self {
        let fan_in = in_channels * kernel_size * kernel_size;
        let weight = vs.weight(&[out_channels, in_channels, kernel_size, kernel_size], Init::FanIn(fan_in));
        let bias = vs.get("bias", &[out_channels], Init::FanIn(fan_in));
        Self { weight, bias: Some(bias), stride: 1, padding: kernel_size / 2, adapter: None }
    }

    /// A convolution without bias and padding that moves by its own size, as a vision transformer cuts patches. It
    /// starts as CLIP's does.
    pub fn patches(vs: &Scope, in_channels: i64, out_channels: i64, patch_size: i64) -> Self {
        let weight = vs.weight(&[out_channels, in_channels, patch_size, patch_size], Init::Normal(0.02));
        Self { weight, bias: None, stride: patch_size, padding: 0, adapter: None }
    }

    /// The same convolution with another stride and padding.
    #[must_use]
    pub fn strided(self, stride: i64, padding: i64) -> Self {
        Self { stride, padding, ..self }
    }

    /// Maps [batch, in, height, width] to [batch, out, height', width'].
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        match &self.adapter {
            None => self.weight.conv2d(xs, self.bias.as_ref(), self.stride, self.padding),
            Some(adapter) => self.by_pixels(xs, adapter.as_ref()),
        }
    }

    /// A 1×1 convolution is a fully connected layer over the channels of each pixel.
    fn by_pixels(&self, xs: &Tensor, adapter: &dyn LinearAdapter) -> Tensor {
        let weight = Weight::new(self.weight.tensor().flatten(1, -1));
        let ys = adapter.forward(&xs.permute([0, 2, 3, 1]), &weight, self.bias.as_ref());
        ys.permute([0, 3, 1, 2]).contiguous()
    }

    /// The weight `[out, in, 1, 1]`, and the place for an adapter; `None` for all but a 1×1 convolution of stride 1.
    pub fn adapter(&mut self) -> Option<(&Tensor, &mut AdapterSlot)> {
        let by_pixels = self.weight.tensor().size()[2..] == [1, 1] && self.stride == 1 && self.padding == 0;
        by_pixels.then_some((self.weight.tensor(), &mut self.adapter))
    }
}
