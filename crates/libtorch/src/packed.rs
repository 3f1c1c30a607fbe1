//! Layers' weights, and their copies in the layout that a CPU computes with.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::checkpoint::gradients_are_on;
use crate::shim::{self, check, made};

/// The weight of a convolution or a fully connected layer.
///
/// While a [`Frozen`] has it, passes without gradients compute with a copy of it in oneDNN's layout, to which otherwise each
/// pass brings it anew. Clones share the numbers and the copy.
#[derive(Debug)]
pub struct Weight {
    tensor: Tensor,
    slot: Slot,
}

/// Where a frozen weight's copy is kept; empty for one that is not frozen.
type Slot = Arc<Mutex<Option<Packing>>>;

#[derive(Debug)]
struct Packing {
    /// The bytes that copies may still take, of all weights that were frozen together.
    room: Arc<AtomicU64>,
    copy: Option<Copy>,
}

#[derive(Debug)]
struct Copy {
    packed: Tensor,
    /// What it is a copy of.
    of: State,
}

/// Where a tensor's numbers are, and how often LibTorch has written to them.
type State = (usize, i64);

/// The numbers of a weight that is worth it. Below, oneDNN takes longer to look up how to compute than the layout costs.
const LARGE: usize = 400_000;

impl Weight {
    /// A layer's weight, which shares the tensor's memory.
    pub fn new(tensor: Tensor) -> Self {
        Self { tensor, slot: Slot::default() }
    }

    /// The numbers themselves.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// A convolution of `xs` [batch, in, height, width] with this weight, `[out, in, k, k]`, and `bias` `[out]`, which are
    /// brought to the dtype of `xs`. The result may lie in memory channels last.
    ///
    /// # Panics
    /// As `tch` where shapes or devices do not fit; see [`crate::catch`].
    pub fn conv2d(&self, xs: &Tensor, bias: Option<&Tensor>, stride: i64, padding: i64) -> Tensor {
        let bias = bias.map(|bias| bias.to_kind(xs.kind()));
        let of_bias = bias.as_ref().map_or(ptr::null(), Tensor::as_ptr);
        // Safety: the tensors live during the call.
        let packed = self.packed(xs, |weight| unsafe {
            made(|to| shim::shim_pack_conv2d(weight.as_ptr(), xs.as_ptr(), stride, padding, to))
        });
        // Safety: as above; a null bias stands for none.
        let by_packed = packed.and_then(|packed| unsafe {
            made(|to| shim::shim_conv2d_packed(xs.as_ptr(), packed.as_ptr(), of_bias, stride, padding, to)).ok()
        });
        // What oneDNN does not take, LibTorch's own function takes, or says what is wrong with it.
        let own = || xs.conv2d(&self.tensor.to_kind(xs.kind()), bias.as_ref(), [stride; 2], [padding; 2], [1, 1], 1);
        by_packed.unwrap_or_else(own)
    }

    /// y = x Wᵀ + b of `xs` [..., in] with this weight, `[out, in]`, and `bias` `[out]`, which are brought to the dtype of
    /// `xs`.
    ///
    /// # Panics
    /// As [`Weight::conv2d`].
    pub fn linear(&self, xs: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let bias = bias.map(|bias| bias.to_kind(xs.kind()));
        let of_bias = bias.as_ref().map_or(ptr::null(), Tensor::as_ptr);
        let rows: i64 = xs.size().iter().rev().skip(1).product();
        // Safety: as in `conv2d`.
        let packed = self.packed(xs, |weight| unsafe { made(|to| shim::shim_pack_linear(weight.as_ptr(), rows, to)) });
        let by_packed = packed.and_then(|packed| unsafe {
            made(|to| shim::shim_linear_packed(xs.as_ptr(), packed.as_ptr(), of_bias, to)).ok()
        });
        by_packed.unwrap_or_else(|| xs.linear(&self.tensor.to_kind(xs.kind()), bias.as_ref()))
    }

    /// The copy for a pass with `xs`, made by `pack` where there is none or the weight has changed since. None where the
    /// weight is not frozen, is being trained or is small, where gradients are on, and for all but f32 on the CPU.
    fn packed(&self, xs: &Tensor, pack: impl FnOnce(&Tensor) -> Result<Tensor, Error>) -> Option<Tensor> {
        let mut slot = lock(&self.slot);
        let packing = slot.as_mut()?;
        let fits = |tensor: &Tensor| tensor.kind() == Kind::Float && tensor.device() == Device::Cpu;
        let large = self.tensor.numel() >= LARGE && fits(xs) && fits(&self.tensor);
        if !large || self.tensor.requires_grad() || gradients_are_on() {
            return None;
        }
        let state = state(&self.tensor)?;
        if let Some(copy) = packing.copy.as_ref().filter(|copy| copy.of == state) {
            return Some(copy.packed.shallow_clone());
        }
        let bytes = size_of::<f32>() as u64 * self.tensor.numel() as u64;
        if packing.copy.take().is_none() {
            let take = |room: u64| room.checked_sub(bytes);
            packing.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        }
        let Ok(packed) = pack(&self.tensor.detach()) else {
            packing.room.fetch_add(bytes, Ordering::Relaxed);
            return None;
        };
        let copy = packing.copy.insert(Copy { packed, of: state });
        Some(copy.packed.shallow_clone())
    }
}

impl Clone for Weight {
    fn clone(&self) -> Self {
        Self { tensor: self.tensor.shallow_clone(), slot: Arc::clone(&self.slot) }
    }
}

/// None for a tensor whose writes LibTorch does not count.
fn state(tensor: &Tensor) -> Option<State> {
    let mut version = 0;
    // Safety: the tensor lives during the call, which writes a number.
    unsafe { check(shim::shim_version(tensor.as_ptr(), &raw mut version)) }.ok()?;
    Some((tensor.data_ptr() as usize, version))
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Packing>> {
    // A panic leaves a copy behind that is whole, or none.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps weights packed as long as it lives: each large f32 weight on the CPU from its first use on, in passes without
/// gradients. Results differ by rounding.
///
/// A weight that is written to meanwhile, by LibTorch's operations, is packed anew; one that is being trained is left alone.
///
/// ```
/// use libtorch::{Frozen, Weight, random};
///
/// let (weight, xs) = (Weight::new(random::normal(1, &[1024, 1024])), random::normal(2, &[3, 1024]));
/// let frozen = Frozen::new([&weight], u64::MAX);
/// let ys = tch::no_grad(|| weight.linear(&xs, None));
/// assert_eq!((ys.size(), frozen.packed()), (vec![3, 1024], 1));
/// ```
#[derive(Debug)]
#[must_use = "weights are packed as long as this lives"]
pub struct Frozen {
    slots: Vec<Slot>,
}

impl Frozen {
    /// Of `weights`, as many as fit into `most` bytes, in the order of their first use: the copies take as much memory as
    /// the weights. Those that another one has frozen already are left to it.
    pub fn new<'a>(weights: impl IntoIterator<Item = &'a Weight>, most: u64) -> Self {
        let room = Arc::new(AtomicU64::new(most));
        let slots = weights.into_iter().filter_map(|weight| {
            let mut slot = lock(&weight.slot);
            let free = slot.is_none();
            slot.get_or_insert_with(|| Packing { room: Arc::clone(&room), copy: None });
            free.then(|| Arc::clone(&weight.slot))
        });
        Self { slots: slots.collect() }
    }

    /// How many weights have been packed so far.
    pub fn packed(&self) -> usize {
        let is_packed = |slot: &&Slot| lock(slot).as_ref().is_some_and(|packing| packing.copy.is_some());
        self.slots.iter().filter(is_packed).count()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.slots.iter().for_each(|slot| drop(lock(slot).take()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdamWRule, AdamWSlot, catch, fused_adamw, random, scale_all};

    fn assert_close(name: &str, found: &Tensor, expected: &Tensor) {
        assert_eq!(found.size(), expected.size(), "{name}");
        let error = (found - expected).abs().max() / expected.abs().max();
        assert!(error.double_value(&[]) < 1e-5, "{name}: {error}");
    }

    /// Inputs and a weight of a fully connected layer.
    fn pair() -> (Tensor, Weight) {
        (random::normal(1, &[3, 1024]), Weight::new(random::normal(2, &[1024, 1024])))
    }

    fn freeze(weight: &Weight) -> Frozen {
        Frozen::new([weight], u64::MAX)
    }

    #[test]
    fn packed_weights_compute_the_same() {
        let _without = tch::no_grad_guard();
        let bias = random::normal(3, &[256]);
        for (side, kernel, stride, padding) in [(8, 3, 1, 1), (9, 3, 2, 1), (9, 3, 2, 0), (2, 5, 1, 2)] {
            let xs = random::normal(1, &[2, 192, side, side]);
            let weight = Weight::new(random::normal(2, &[256, 192, kernel, kernel]));
            for bias in [Some(&bias), None] {
                let expected = weight.conv2d(&xs, bias, stride, padding);
                let frozen = freeze(&weight);
                for _ in 0..2 {
                    assert_close("conv2d", &weight.conv2d(&xs, bias, stride, padding), &expected);
                }
                // Packed for another shape.
                let more = Tensor::cat(&[&xs, &xs, &xs], 0);
                let found = weight.conv2d(&more, bias, stride, padding).narrow(0, 4, 2);
                assert_close("conv2d of more", &found, &expected);
                assert_eq!(frozen.packed(), 1);
            }
        }
        let (xs, weight) = (random::normal(4, &[2, 7, 2048]), Weight::new(random::normal(5, &[256, 2048])));
        for bias in [Some(&bias), None] {
            let expected = weight.linear(&xs, bias);
            let frozen = freeze(&weight);
            assert_close("linear", &weight.linear(&xs, bias), &expected);
            let one = weight.linear(&xs.narrow(0, 1, 1).narrow(1, 3, 1), bias);
            assert_close("linear of one row", &one, &expected.narrow(0, 1, 1).narrow(1, 3, 1));
            let more = weight.linear(&xs.repeat([300, 1, 1]), bias).narrow(0, 598, 2);
            assert_close("linear of more", &more, &expected);
            assert_eq!(frozen.packed(), 1);
        }
    }

    #[test]
    fn a_weight_that_changes_is_packed_anew() {
        let _without = tch::no_grad_guard();
        let (xs, weight) = pair();
        let frozen = freeze(&weight);
        let check = |what: &str| {
            assert_close(what, &weight.linear(&xs, None), &xs.linear(weight.tensor(), None::<&Tensor>));
            assert_eq!(frozen.packed(), 1, "{what}");
        };
        check("before");
        let _ = weight.tensor().shallow_clone().g_mul_scalar_(2);
        check("twice the weight");
        weight.tensor().detach().narrow(0, 3, 5).copy_(&random::normal(3, &[5, 1024]));
        check("other rows");
        let zeros = || weight.tensor().zeros_like();
        let (gradient, exp_avg, exp_avg_sq, step) =
            (&xs.repeat([342, 1]).narrow(0, 0, 1024), zeros(), zeros(), Tensor::from(0f32));
        let slot =
            AdamWSlot { parameter: weight.tensor(), gradient, exp_avg: &exp_avg, exp_avg_sq: &exp_avg_sq, step: &step };
        let rule = AdamWRule { learning_rate: 0.5, beta1: 0.9, beta2: 0.999, weight_decay: 0.1, eps: 1e-8 };
        let old = weight.tensor().copy();
        fused_adamw(&[slot], &rule, None).unwrap();
        assert_ne!(weight.tensor(), &old);
        check("after an optimizer's step");
        scale_all(&[weight.tensor()], &Tensor::from(3f32)).unwrap();
        check("scaled");
    }

    #[test]
    fn weights_are_packed_as_long_as_they_are_frozen() {
        let _without = tch::no_grad_guard();
        let (xs, weight) = pair();
        let plain = weight.linear(&xs, None);
        let outer = freeze(&weight);
        let inner = freeze(&weight.clone());
        let _ = weight.linear(&xs, None);
        assert_eq!([&outer, &inner].map(Frozen::packed), [1, 0], "the first has it");
        drop(inner);
        assert_eq!(outer.packed(), 1);
        // What does not fit is refused as ever, and ends nothing.
        let narrow = xs.narrow(1, 0, 5);
        let refused = catch(|| weight.linear(&narrow, None)).unwrap_err();
        assert_eq!(refused, catch(|| narrow.linear(weight.tensor(), None::<&Tensor>)).unwrap_err());
        assert_eq!(outer.packed(), 1);
        drop(outer);
        assert!(lock(&weight.slot).is_none());
        assert_eq!(weight.linear(&xs, None), plain);
    }

    #[test]
    fn gradients_are_never_lost() {
        let (xs, weight) = pair();
        let trained = Weight::new(random::normal(2, &[1024, 1024]).set_requires_grad(true));
        let frozen = Frozen::new([&weight, &trained], u64::MAX);
        let _ = tch::no_grad(|| trained.linear(&xs, None));
        assert_eq!(frozen.packed(), 0, "a weight that is being trained");
        let _ = tch::no_grad(|| weight.linear(&xs, None));
        assert_eq!(frozen.packed(), 1);
        let xs = xs.set_requires_grad(true);
        (weight.linear(&xs, None) + trained.linear(&xs, None)).sum(Kind::Float).backward();
        let expected = (weight.tensor() + trained.tensor().detach()).sum_dim_intlist(0, false, Kind::Float);
        assert_close("gradient", &xs.grad().get(1), &expected);
        let expected = xs.detach().sum_dim_intlist(0, false, Kind::Float);
        assert_close("gradient", &trained.tensor().grad().get(7), &expected);
    }

    #[test]
    fn no_more_is_packed_than_there_is_room() {
        let _without = tch::no_grad_guard();
        let xs = random::normal(1, &[3, 1024]);
        let weights = [2048, 1024, 1024, 1024].map(|rows| Weight::new(random::normal(2, &[rows, 1024])));
        // The first takes 8 MiB, the others 4.
        let frozen = Frozen::new(&weights, 9 << 20);
        let numbers = |weight: &Weight| drop(weight.linear(&xs, None));
        for (i, packed) in [(1, 1), (0, 1), (2, 2), (3, 2), (1, 2)] {
            numbers(&weights[i]);
            assert_eq!(frozen.packed(), packed, "weight {i}");
        }
        // A new copy takes the place of the old one.
        let _ = weights[1].tensor().shallow_clone().g_mul_scalar_(2);
        numbers(&weights[1]);
        assert_eq!(frozen.packed(), 2);
    }

    #[test]
    fn small_weights_and_other_dtypes_are_left_alone() {
        let _without = tch::no_grad_guard();
        let (xs, weight) = pair();
        let others = [weight.tensor().narrow(0, 0, 8), weight.tensor().to_kind(Kind::Double)].map(Weight::new);
        let frozen = Frozen::new(others.iter().chain([&weight]), u64::MAX);
        let _ = others[0].linear(&xs, None);
        let _ = others[1].linear(&xs, None);
        let _ = weight.linear(&xs.to_kind(Kind::Double), None);
        assert_eq!(frozen.packed(), 0);
    }
}
