//! What may be learned beside a layer's weight.

use std::fmt::Debug;

use libtorch::Weight;
use tch::Tensor;

/// A learned change of a layer's weight, such as LoRA's.
///
/// Its parameters must be leaves: a checkpointed segment of a model captures them (see [`libtorch::checkpoint`]), and
/// may run on another thread.
pub trait LinearAdapter: Debug + Send {
    /// The weight `[out, in]` with the change in it, f32, given the layer's own of any dtype.
    fn merged(&self, weight: &Tensor) -> Tensor;

    /// Maps [..., in] to [..., out] of the dtype of `xs`, in place of the layer's own x Wᵀ + b.
    fn forward(&self, xs: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Tensor {
        let kind = xs.kind();
        xs.linear(&self.merged(weight.tensor()).to_kind(kind), bias.map(|bias| bias.to_kind(kind)).as_ref())
    }
}

/// The place for an adapter in a layer; it costs nothing while it is empty.
pub type AdapterSlot = Option<Box<dyn LinearAdapter>>;

#[cfg(test)]
mod tests {
    use golden::assert_close;
    use libtorch::random::normal;
    use tch::{Device, Kind};

    use super::*;
    use crate::{Conv2d, Linear};

    /// A weight that is added to the layer's.
    #[derive(Debug)]
    struct Added(Tensor);

    impl LinearAdapter for Added {
        fn merged(&self, weight: &Tensor) -> Tensor {
            weight.to_kind(Kind::Float) + &self.0
        }
    }

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn added(seed: u64, shape: [i64; 2]) -> (AdapterSlot, Tensor) {
        let change = normal(seed, &shape).set_requires_grad(true);
        (Some(Box::new(Added(change.shallow_clone()))), change)
    }

    #[test]
    fn a_layer_with_an_adapter_computes_with_the_merged_weight() {
        let random = weights::Random { seed: 1 };
        let (mut linear, parameters) = weights::build(&random, F32, |vs| Ok(Linear::new(vs, 4, 6))).unwrap();
        let xs = normal(2, &[2, 3, 4]);
        let without = linear.forward(&xs);
        let (slot, change) = added(3, [6, 4]);
        *linear.adapter().1 = slot;
        let [weight, bias] = ["weight", "bias"].map(|name| parameters.get(name).unwrap());
        let expected = xs.linear(&(weight + &change), Some(bias));
        assert_close("linear", &linear.forward(&xs), &expected, 1e-6);
        let half = linear.forward(&xs.to_kind(Kind::BFloat16));
        assert_eq!(half.kind(), Kind::BFloat16);
        assert_close("linear in bf16", &half, &expected, 2e-2);
        linear.forward(&xs).sum(Kind::Float).backward();
        let expected = xs.sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Float).expand([6, 4], false);
        assert_close("gradient", &change.grad(), &expected, 1e-6);
        *linear.adapter().1 = None;
        assert_eq!(linear.forward(&xs), without);
    }

    #[test]
    fn a_convolution_of_one_pixel_may_have_an_adapter_and_others_may_not() {
        let random = weights::Random { seed: 1 };
        let (mut conv, parameters) = weights::build(&random, F32, |vs| Ok(Conv2d::new(vs, 4, 6, 1))).unwrap();
        let xs = normal(2, &[2, 4, 3, 5]);
        let (slot, change) = added(3, [6, 4]);
        *conv.adapter().unwrap().1 = slot;
        let weight = parameters.get("weight").unwrap() + change.view([6, 4, 1, 1]);
        let expected = xs.conv2d(&weight, parameters.get("bias"), [1, 1], [0, 0], [1, 1], 1);
        let found = conv.forward(&xs);
        assert_close("convolution", &found, &expected, 1e-6);
        assert!(found.is_contiguous());
        let (mut wide, _) = weights::build(&random, F32, |vs| Ok(Conv2d::new(vs, 4, 6, 3))).unwrap();
        let (strided, _) = weights::build(&random, F32, |vs| Ok(Conv2d::new(vs, 4, 6, 1))).unwrap();
        assert!(wide.adapter().is_none() && strided.strided(2, 0).adapter().is_none());
    }
}
