//! Weights that stay the same for many passes, in the layout that a CPU computes with.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::shim::{self, made};

thread_local! {
    /// The weights packed so far, by where they lie in memory; none outside [`with_constant_weights`].
    static PACKED: RefCell<Option<HashMap<usize, Packed>>> = const { RefCell::new(None) };
}

/// The numbers of a weight that is worth it. Below, oneDNN takes longer to look up how to compute than the layout costs:
/// with all its weights packed the miniature's sampling took 1.25 s instead of 1.05.
const LARGE: usize = 400_000;

struct Packed {
    /// As long as it is held, nothing else lies in its place.
    _weight: Tensor,
    /// None where it cannot be packed.
    packed: Option<Tensor>,
}

/// Runs `f` without gradients and lets [`conv2d`] and [`linear`] on this thread keep each large f32 weight on the CPU in
/// oneDNN's layout after its first use, which otherwise a convolution brings it to in each pass. No weight may change
/// meanwhile, and these are held twice. Results differ by rounding. Calls may nest.
///
/// GAIN
pub fn with_constant_weights<T>(f: impl FnOnce() -> T) -> T {
    struct End(bool);
    impl Drop for End {
        fn drop(&mut self) {
            if self.0 {
                PACKED.set(None);
            }
        }
    }
    let outermost = PACKED.with_borrow_mut(|packed| {
        let outermost = packed.is_none();
        packed.get_or_insert_default();
        outermost
    });
    let _end = End(outermost);
    tch::no_grad(f)
}

/// A convolution of `xs` [batch, in, height, width] with a square `weight` [out, in, k, k] and `bias` [out].
///
/// # Panics
/// As `tch` where shapes, kinds or devices do not fit; see [`crate::catch`].
pub fn conv2d(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: i64, padding: i64) -> Tensor {
    let bias_pointer = bias.map_or(std::ptr::null(), Tensor::as_ptr);
    let packed = with_packed(
        xs,
        weight,
        // Safety: the tensors live in the arguments during the call.
        |weight| unsafe { made(|to| shim::shim_pack_conv2d(weight.as_ptr(), xs.as_ptr(), stride, padding, to)) },
        // Safety: as above; a null bias stands for none.
        |weight| unsafe {
            made(|to| shim::shim_conv2d_packed(xs.as_ptr(), weight.as_ptr(), bias_pointer, stride, padding, to))
        },
    );
    packed.unwrap_or_else(|| xs.conv2d(weight, bias, [stride; 2], [padding; 2], [1, 1], 1))
}

/// y = x Wᵀ + b of `xs` [..., in] with `weight` [out, in] and `bias` [out].
///
/// # Panics
/// As [`conv2d`].
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let bias_pointer = bias.map_or(std::ptr::null(), Tensor::as_ptr);
    let packed = with_packed(
        xs,
        weight,
        |weight| {
            let rows: i64 = xs.size().iter().rev().skip(1).product();
            // Safety: the tensors live in the arguments during the call.
            unsafe { made(|to| shim::shim_pack_linear(weight.as_ptr(), rows, to)) }
        },
        // Safety: as above; a null bias stands for none.
        |weight| unsafe { made(|to| shim::shim_linear_packed(xs.as_ptr(), weight.as_ptr(), bias_pointer, to)) },
    );
    packed.unwrap_or_else(|| xs.linear(weight, bias))
}

/// What `compute` makes of the packed `weight`. None where weights are not to be packed, and for all that oneDNN does not
/// take: LibTorch's own functions take it, or say what is wrong with it.
fn with_packed(
    xs: &Tensor,
    weight: &Tensor,
    pack: impl FnOnce(&Tensor) -> Result<Tensor, Error>,
    compute: impl FnOnce(&Tensor) -> Result<Tensor, Error>,
) -> Option<Tensor> {
    let fits = |tensor: &Tensor| tensor.kind() == Kind::Float && tensor.device() == Device::Cpu;
    PACKED.with_borrow_mut(|all| {
        let all = all.as_mut().filter(|_| weight.numel() >= LARGE && fits(xs) && fits(weight))?;
        let packed = all.entry(weight.data_ptr() as usize).or_insert_with(|| {
            let weight = weight.detach();
            Packed { packed: pack(&weight).ok(), _weight: weight }
        });
        compute(packed.packed.as_ref()?).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catch, random};

    fn packed() -> Option<usize> {
        PACKED.with_borrow(|all| all.as_ref().map(|all| all.values().filter(|packed| packed.packed.is_some()).count()))
    }

    fn assert_close(name: &str, found: &Tensor, expected: &Tensor) {
        assert_eq!(found.size(), expected.size(), "{name}");
        let error = (found - expected).abs().max() / expected.abs().max();
        assert!(error.double_value(&[]) < 1e-5, "{name}: {error}");
    }

    #[test]
    fn packed_weights_compute_the_same() {
        let bias = random::normal(3, &[256]);
        for (side, kernel, stride, padding) in [(8, 3, 1, 1), (9, 3, 2, 1), (9, 3, 2, 0), (2, 5, 1, 2)] {
            let (xs, weight) =
                (random::normal(1, &[2, 192, side, side]), random::normal(2, &[256, 192, kernel, kernel]));
            for bias in [Some(&bias), None] {
                let expected = conv2d(&xs, &weight, bias, stride, padding);
                with_constant_weights(|| {
                    for _ in 0..2 {
                        assert_close("conv2d", &conv2d(&xs, &weight, bias, stride, padding), &expected);
                    }
                    // Packed for another shape.
                    let more = Tensor::cat(&[&xs, &xs, &xs], 0);
                    let found = conv2d(&more, &weight, bias, stride, padding).narrow(0, 4, 2);
                    assert_close("conv2d of more", &found, &expected);
                    assert_eq!(packed(), Some(1));
                });
            }
        }
        let (xs, weight) = (random::normal(4, &[2, 7, 2048]), random::normal(5, &[256, 2048]));
        for bias in [Some(&bias), None] {
            let expected = linear(&xs, &weight, bias);
            with_constant_weights(|| {
                assert_close("linear", &linear(&xs, &weight, bias), &expected);
                assert_close("linear of fewer", &linear(&xs.get(1), &weight, bias), &expected.get(1));
                assert_eq!(packed(), Some(1));
            });
        }
    }

    #[test]
    fn weights_may_change_afterwards() {
        let (xs, mut weight) = (random::normal(1, &[3, 1024]), random::normal(2, &[1024, 1024]));
        let before = with_constant_weights(|| linear(&xs, &weight, None));
        let _ = weight.g_mul_scalar_(2);
        let after = with_constant_weights(|| linear(&xs, &weight, None));
        assert_close("twice the weight", &after, &(before * 2));
        assert_eq!(packed(), None);
    }

    #[test]
    fn what_is_packed_lasts_until_the_outermost_end() {
        let (xs, weight) = (random::normal(1, &[3, 1024]), random::normal(2, &[1024, 1024]));
        with_constant_weights(|| {
            let _ = with_constant_weights(|| linear(&xs, &weight, None));
            assert_eq!(packed(), Some(1));
            // What does not fit is refused as ever, and ends nothing.
            let narrow = xs.narrow(1, 0, 5);
            let refused = catch(|| with_constant_weights(|| linear(&narrow, &weight, None))).unwrap_err();
            assert_eq!(refused, catch(|| narrow.linear(&weight, None::<&Tensor>)).unwrap_err());
            assert_eq!(packed(), Some(1));
        });
        let _ = catch(|| with_constant_weights(|| xs.matmul(&xs)));
        assert_eq!(packed(), None);
    }

    #[test]
    fn gradients_are_never_lost() {
        let xs = random::normal(1, &[3, 1024]);
        let weight = random::normal(2, &[1024, 1024]).set_requires_grad(true);
        let ys = with_constant_weights(|| tch::with_grad(|| linear(&xs, &weight, None)));
        ys.sum(Kind::Float).backward();
        assert_close("gradient", &weight.grad().get(7), &xs.sum_dim_intlist(0, false, Kind::Float));
    }

    #[test]
    fn small_weights_and_other_kinds_are_left_alone() {
        let (xs, weight) = (random::normal(1, &[3, 1024]), random::normal(2, &[1024, 1024]));
        with_constant_weights(|| {
            let _ = linear(&xs, &weight.narrow(0, 0, 8), None);
            let _ = linear(&xs.to_kind(Kind::Double), &weight.to_kind(Kind::Double), None);
            assert_eq!(packed(), Some(0));
        });
    }
}
