//! Weights that stay the same for many passes, in the layout that a CPU computes with.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ptr;

use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::checkpoint::gradients_are_on;
use crate::memory::host_memory;
use crate::shim::{self, made};

thread_local! {
    /// What is packed; nothing outside [`with_constant_weights`].
    static PACKED: RefCell<Option<Weights>> = const { RefCell::new(None) };
}

struct Weights {
    packed: HashMap<Key, Packed>,
    /// The bytes that may still be taken.
    room: u64,
}

/// Which numbers in memory a weight is: their place, sizes and strides.
type Key = (usize, Vec<i64>, Vec<i64>);

struct Packed {
    /// As long as it is held, nothing else lies in its place.
    _weight: Tensor,
    packed: Tensor,
}

/// The numbers of a weight that is worth it. Below, oneDNN takes longer to look up how to compute than the layout costs:
/// with all its weights packed the miniature's sampling took 1.25 s instead of 1.05.
const LARGE: usize = 400_000;

/// Runs `f` without gradients and lets [`conv2d`] and [`linear`] on this thread keep each large f32 weight on the CPU in
/// oneDNN's layout after its first use, which otherwise a convolution brings it to in each pass. No weight may change
/// meanwhile. Results differ by rounding. Calls may nest.
///
/// These weights are held twice: as many as fit into half of the memory that the machine has beyond 6 GiB, which is always
/// the same, so that the same work gives the same numbers. Weights that are being trained are left alone.
///
/// Of 50 guided steps of sampling by Stable Diffusion 2.1 at 128 pixels, two threads, it takes 46 s to 33; of CLIP
/// ViT-B/32's features of 768 pictures 40 s to 35.
pub fn with_constant_weights<T>(f: impl FnOnce() -> T) -> T {
    with_room(host_memory().map_or(u64::MAX, |bytes| bytes.saturating_sub(OTHERS) / 2), f)
}

/// What Stable Diffusion takes in f32 otherwise, and the system.
const OTHERS: u64 = 6 << 30;

fn with_room<T>(room: u64, f: impl FnOnce() -> T) -> T {
    struct End {
        outermost: bool,
    }
    impl Drop for End {
        fn drop(&mut self) {
            if self.outermost {
                PACKED.set(None);
            }
        }
    }
    let outermost = PACKED.with_borrow_mut(|packed| {
        let outermost = packed.is_none();
        packed.get_or_insert_with(|| Weights { packed: HashMap::new(), room });
        outermost
    });
    let _end = End { outermost };
    let _without_gradients = tch::no_grad_guard();
    f()
}

/// A convolution of `xs` [batch, in, height, width] with a square `weight` `[out, in, k, k]` and `bias` `[out]`, which are
/// brought to the kind of `xs`. The result may lie in memory channels last.
///
/// # Panics
/// As `tch` where shapes or devices do not fit; see [`crate::catch`].
pub fn conv2d(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: i64, padding: i64) -> Tensor {
    let bias = bias.map(|bias| bias.to_kind(xs.kind()));
    let of_bias = bias.as_ref().map_or(ptr::null(), Tensor::as_ptr);
    let packed = with_packed(
        xs,
        weight,
        // Safety: the tensors live during the call.
        |weight| unsafe { made(|to| shim::shim_pack_conv2d(weight.as_ptr(), xs.as_ptr(), stride, padding, to)) },
        // Safety: as above; a null bias stands for none.
        |packed| unsafe {
            made(|to| shim::shim_conv2d_packed(xs.as_ptr(), packed.as_ptr(), of_bias, stride, padding, to))
        },
    );
    packed.unwrap_or_else(|| xs.conv2d(&weight.to_kind(xs.kind()), bias.as_ref(), [stride; 2], [padding; 2], [1, 1], 1))
}

/// y = x Wᵀ + b of `xs` [..., in] with `weight` `[out, in]` and `bias` `[out]`, which are brought to the kind of `xs`.
///
/// # Panics
/// As [`conv2d`].
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let bias = bias.map(|bias| bias.to_kind(xs.kind()));
    let of_bias = bias.as_ref().map_or(ptr::null(), Tensor::as_ptr);
    let rows: i64 = xs.size().iter().rev().skip(1).product();
    let packed = with_packed(
        xs,
        weight,
        // Safety: the tensors live during the call.
        |weight| unsafe { made(|to| shim::shim_pack_linear(weight.as_ptr(), rows, to)) },
        // Safety: as above; a null bias stands for none.
        |packed| unsafe { made(|to| shim::shim_linear_packed(xs.as_ptr(), packed.as_ptr(), of_bias, to)) },
    );
    packed.unwrap_or_else(|| xs.linear(&weight.to_kind(xs.kind()), bias.as_ref()))
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
        if weight.requires_grad() || gradients_are_on() {
            return None;
        }
        let packed = match all.packed.entry((weight.data_ptr() as usize, weight.size(), weight.stride())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let room = all.room.checked_sub(size_of::<f32>() as u64 * weight.numel() as u64)?;
                let weight = weight.detach();
                let packed = new.insert(Packed { packed: pack(&weight).ok()?, _weight: weight });
                all.room = room;
                packed
            }
        };
        compute(&packed.packed).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catch, random};

    /// With as much room as is wanted, whatever machine it is.
    fn within<T>(f: impl FnOnce() -> T) -> T {
        with_room(u64::MAX, f)
    }

    fn packed() -> Option<usize> {
        PACKED.with_borrow(|all| all.as_ref().map(|all| all.packed.len()))
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
                within(|| {
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
            within(|| {
                assert_close("linear", &linear(&xs, &weight, bias), &expected);
                let one = xs.narrow(0, 1, 1).narrow(1, 3, 1);
                assert_close(
                    "linear of one row",
                    &linear(&one, &weight, bias),
                    &expected.narrow(0, 1, 1).narrow(1, 3, 1),
                );
                let more = xs.repeat([300, 1, 1]);
                assert_close("linear of more", &linear(&more, &weight, bias).narrow(0, 598, 2), &expected);
                assert_eq!(packed(), Some(1));
            });
        }
    }

    #[test]
    fn weights_may_change_afterwards() {
        let (xs, mut weight) = (random::normal(1, &[3, 1024]), random::normal(2, &[1024, 1024]));
        let before = within(|| linear(&xs, &weight, None));
        let _ = weight.g_mul_scalar_(2);
        let after = within(|| linear(&xs, &weight, None));
        assert_close("twice the weight", &after, &(before * 2));
        assert_eq!(packed(), None);
    }

    #[test]
    fn views_of_a_weight_are_weights_of_their_own() {
        let (xs, weight) = (random::normal(1, &[3, 1024]), random::normal(2, &[1024, 1024]));
        within(|| {
            for view in [weight.shallow_clone(), weight.narrow(0, 0, 512), weight.tr(), weight.narrow(1, 0, 512)] {
                let xs = xs.narrow(1, 0, view.size()[1]);
                let expected = xs.linear(&view, None::<&Tensor>);
                assert_close(&format!("{view:?}"), &linear(&xs, &view, None), &expected);
            }
        });
    }

    #[test]
    fn what_is_packed_lasts_until_the_outermost_end() {
        let (xs, weight) = (random::normal(1, &[3, 1024]), random::normal(2, &[1024, 1024]));
        within(|| {
            let _ = within(|| linear(&xs, &weight, None));
            assert_eq!(packed(), Some(1));
            // What does not fit is refused as ever, and ends nothing.
            let narrow = xs.narrow(1, 0, 5);
            let refused = catch(|| within(|| linear(&narrow, &weight, None))).unwrap_err();
            assert_eq!(refused, catch(|| narrow.linear(&weight, None::<&Tensor>)).unwrap_err());
            assert_eq!(packed(), Some(1));
        });
        let _ = catch(|| within(|| xs.matmul(&xs)));
        assert_eq!(packed(), None);
    }

    #[test]
    fn gradients_are_never_lost() {
        let xs = random::normal(1, &[3, 1024]);
        let weight = random::normal(2, &[1024, 1024]).set_requires_grad(true);
        within(|| {
            let _ = linear(&xs, &weight, None);
            assert_eq!(packed(), Some(0), "a weight that is being trained");
            // Packed, it would have none.
            let xs = xs.shallow_clone().set_requires_grad(true);
            let frozen = weight.detach();
            let _ = linear(&xs, &frozen, None);
            assert_eq!(packed(), Some(1));
            tch::with_grad(|| linear(&xs, &frozen, None).sum(Kind::Float).backward());
            assert_close("gradient", &xs.grad().get(1), &frozen.sum_dim_intlist(0, false, Kind::Float));
        });
        let ys = within(|| tch::with_grad(|| linear(&xs, &weight, None)));
        ys.sum(Kind::Float).backward();
        assert_close("gradient", &weight.grad().get(7), &xs.sum_dim_intlist(0, false, Kind::Float));
    }

    #[test]
    fn no_more_is_packed_than_there_is_room() {
        let (xs, weight) = (random::normal(1, &[3, 1024]), random::normal(2, &[2048, 1024]));
        let halves = weight.chunk(2, 0);
        with_room(6 << 20, || {
            // The whole takes 8 MiB, a half 4.
            for (weight, expected) in [(&weight, 0), (&halves[0], 1), (&halves[1], 1), (&halves[0], 1)] {
                assert_close("linear", &linear(&xs, weight, None), &xs.linear(weight, None::<&Tensor>));
                assert_eq!(packed(), Some(expected));
            }
        });
    }

    #[test]
    fn small_weights_and_other_kinds_are_left_alone() {
        let (xs, weight) = (random::normal(1, &[3, 1024]), random::normal(2, &[1024, 1024]));
        within(|| {
            let _ = linear(&xs, &weight.narrow(0, 0, 8), None);
            let _ = linear(&xs.to_kind(Kind::Double), &weight, None);
            // A copy of another kind is made for each call; it would be kept.
            let _ = linear(&xs, &weight.to_kind(Kind::Double), None);
            assert_eq!(packed(), Some(0));
        });
    }
}
