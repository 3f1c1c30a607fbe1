//! Halving and doubling the size of feature maps.

use tch::Tensor;
use weights::Scope;

use crate::Conv2d;

/// A convolution that halves height and width (`conv`).
#[derive(Debug)]
pub struct Downsample2d {
    conv: Conv2d,
    pad_end_only: bool,
}

impl Downsample2d {
    /// With `padding` 1 on all sides; 0 means one row and one column at the end only, as in the VAE's encoder.
    pub fn new(vs: &Scope, channels: i64, padding: i64) -> Self {
        let conv = Conv2d::new(&(vs / "conv"), channels, channels, 3).strided(2, padding);
        Self { conv, pad_end_only: padding == 0 }
    }

    /// Maps [batch, channels, height, width] to half the height and width.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        if self.pad_end_only { self.conv.forward(&xs.constant_pad_nd([0, 1, 0, 1])) } else { self.conv.forward(xs) }
    }
}

/// Nearest-neighbour enlargement followed by a convolution (`conv`).
#[derive(Debug)]
pub struct Upsample2d {
    conv: Conv2d,
}

impl Upsample2d {
    /// For feature maps of `channels`.
    pub fn new(vs: &Scope, channels: i64) -> Self {
        Self { conv: Conv2d::new(&(vs / "conv"), channels, channels, 3) }
    }

    /// Maps [batch, channels, height, width] to twice the height and width, or to `size` where a skip connection
    /// from an odd-sized map asks for it.
    pub fn forward(&self, xs: &Tensor, size: Option<(i64, i64)>) -> Tensor {
        let (height, width) = size.unwrap_or((xs.size()[2] * 2, xs.size()[3] * 2));
        self.conv.forward(&xs.upsample_nearest2d([height, width], None, None))
    }
}
