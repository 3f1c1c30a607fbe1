//! Self-attention over all pixels of a feature map, with one head.

use layers::{GroupNorm, attention, merge_heads, split_heads};
use libtorch::Weight;
use tch::Tensor;
use weights::{Init, Scope};

/// diffusers' `Attention` as the VAE uses it: normalise, attend, add the input.
#[derive(Debug)]
pub(crate) struct Attention {
    group_norm: GroupNorm,
    query: Projection,
    key: Projection,
    value: Projection,
    output: Projection,
}

impl Attention {
    pub(crate) fn new(vs: &Scope, channels: i64, groups: i64, eps: f64) -> Self {
        let projection = |name, old_name| Projection::new(vs, name, old_name, channels);
        Self {
            group_norm: GroupNorm::new(&(vs / "group_norm"), groups, channels, eps),
            query: projection("to_q", "query"),
            key: projection("to_k", "key"),
            value: projection("to_v", "value"),
            output: projection("to_out.0", "proj_attn"),
        }
    }

    /// Maps [batch, channels, height, width] to the same shape.
    pub(crate) fn forward(&self, xs: &Tensor) -> Tensor {
        let pixels = self.group_norm.forward(xs).flatten(2, 3).transpose(1, 2);
        let heads = |projection: &Projection| split_heads(&projection.forward(&pixels), 1);
        let hidden = attention(&heads(&self.query), &heads(&self.key), &heads(&self.value), false);
        let hidden = self.output.forward(&merge_heads(&hidden));
        xs + hidden.transpose(1, 2).reshape(xs.size())
    }
}

/// A fully connected layer that files know by one of two names.
#[derive(Debug)]
struct Projection {
    weight: Weight,
    bias: Tensor,
}

impl Projection {
    fn new(vs: &Scope, name: &str, old_name: &str, channels: i64) -> Self {
        let names = |part| [name, old_name].map(|name| format!("{name}.{part}"));
        let ([weight, old_weight], [bias, old_bias]) = (names("weight"), names("bias"));
        let init = Init::FanIn(channels);
        Self {
            weight: vs.weight_any(&[&weight, &old_weight], &[channels, channels], init),
            bias: vs.get_any(&[&bias, &old_bias], &[channels], init),
        }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        self.weight.linear(xs, Some(&self.bias))
    }
}
