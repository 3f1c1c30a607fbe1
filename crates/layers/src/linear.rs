//! Fully connected layers.

use libtorch::Weight;
use tch::Tensor;
use weights::{Init, Scope};

use crate::AdapterSlot;

/// y = x Wᵀ + b, with `weight` `[out, in]` and, mostly, `bias` `[out]`.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    adapter: AdapterSlot,
}

impl Linear {
    /// A layer with a bias.
    pub fn new(vs: &Scope, in_features: i64, out_features: i64) -> Self {
        let bias = vs.get("bias", &[out_features], Init::FanIn(in_features));
        Self { bias: Some(bias), ..Self::without_bias(vs, in_features, out_features) }
    }

    /// A layer with a bias of zeros and a weight that starts as `init`, for models that start in a way of their own.
    pub fn with_init(vs: &Scope, in_features: i64, out_features: i64, init: Init) -> Self {
        let weight = vs.weight(&[out_features, in_features], init);
        Self { weight, bias: Some(vs.get("bias", &[out_features], Init::Const(0.0))), adapter: None }
    }

    /// A layer without a bias.
    pub fn without_bias(vs: &Scope, in_features: i64, out_features: i64) -> Self {
        Self::without_bias_with_init(vs, in_features, out_features, Init::FanIn(in_features))
    }

    /// A layer without a bias whose weight starts as `init`.
    pub fn without_bias_with_init(vs: &Scope, in_features: i64, out_features: i64, init: Init) -> Self {
        Self { weight: vs.weight(&[out_features, in_features], init), bias: None, adapter: None }
    }

    /// Maps [..., in] to [..., out].
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        match &self.adapter {
            None => self.weight.linear(xs, self.bias.as_ref()),
            Some(adapter) => adapter.forward(xs, &self.weight, self.bias.as_ref()),
        }
    }

    /// The weight `[out, in]`, and the place for an adapter.
    pub fn adapter(&mut self) -> (&Tensor, &mut AdapterSlot) {
        (self.weight.tensor(), &mut self.adapter)
    }
}
