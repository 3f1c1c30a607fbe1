//! Several operations in one walk through memory, where LibTorch walks for each.

use tch::{Device, Kind, Tensor};

use crate::shim::{self, made, or_panic};

/// What is computed in one walk: f32 and bf16 on a CPU. Elsewhere LibTorch's own operations are taken.
fn fuses(xs: &Tensor) -> bool {
    xs.device() == Device::Cpu && matches!(xs.kind(), Kind::Float | Kind::BFloat16) && xs.numel() > 0
}

/// `xs` [batch, channels, ...] normalised over groups of channels and all pixels (arXiv 1803.08494), times `weight` plus `bias`
/// `[channels]`; with `silu`, x·σ(x) of that. `groups` divides `channels`; weight and bias are
/// brought to the dtype of `xs`.
///
/// On a CPU it is computed in f32 whatever the dtype of `xs`, and the backward pass needs nothing but `xs`.
///
/// # Panics
/// As `tch` where shapes or devices do not fit; see [`crate::catch`].
///
/// ```
/// use tch::{Kind, Tensor};
///
/// let xs = libtorch::random::normal(1, &[2, 6, 4, 4]);
/// let ones = Tensor::ones([6], (Kind::Float, tch::Device::Cpu));
/// let normed = libtorch::group_norm(&xs, 3, &ones, &ones.zeros_like(), 1e-5, false);
/// assert!(normed.reshape([2, 3, -1]).mean_dim([-1i64].as_slice(), false, Kind::Float).abs().max().double_value(&[]) < 1e-6);
/// ```
pub fn group_norm(xs: &Tensor, groups: i64, weight: &Tensor, bias: &Tensor, eps: f64, silu: bool) -> Tensor {
    if fuses(xs) {
        // Rounded as everywhere, so that bf16 copies of the parameters give the same.
        let [weight, bias] = [weight, bias].map(|parameter| parameter.to_kind(xs.kind()).to_kind(Kind::Float));
        // Safety: the tensors live during the call.
        return or_panic(unsafe {
            made(|to| shim::shim_group_norm(xs.as_ptr(), groups, weight.as_ptr(), bias.as_ptr(), eps, silu, to))
        });
    }
    let (weight, bias) = (weight.to_kind(xs.kind()), bias.to_kind(xs.kind()));
    let normed = xs.group_norm(groups, Some(&weight), Some(&bias), eps, false);
    if silu { normed.silu() } else { normed }
}

/// a · gelu(b) with a and b the halves of `both` [..., 2 d], and gelu(b) = b·Φ(b) (GEGLU, arXiv 2002.05202).
///
/// On a CPU it is computed in f32 whatever the dtype.
///
/// # Panics
/// As `tch` where there are no two halves; see [`crate::catch`].
///
/// ```
/// let gated = libtorch::geglu(&tch::Tensor::from_slice(&[2.0f32, 3.0, 0.0, 100.0]));
/// assert_eq!(gated, tch::Tensor::from_slice(&[0.0f32, 300.0]));
/// ```
pub fn geglu(both: &Tensor) -> Tensor {
    if fuses(both) {
        // Safety: the tensor lives during the call.
        return or_panic(unsafe { made(|to| shim::shim_geglu(both.as_ptr(), to)) });
    }
    let halves = both.chunk(2, -1);
    &halves[0] * halves[1].gelu("none")
}

/// softmax(q kᵀ · `scale`) for q and k of shape [batch, heads, tokens, d]: [batch, heads, q tokens, k tokens]. Keys that `hidden`,
/// bools of a shape that expands to this, has are not seen; a query that sees none has NaN.
///
/// # Panics
/// As `tch` where shapes or devices do not fit; see [`crate::catch`].
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let q = Tensor::zeros([1, 1, 1, 4], (Kind::Float, Device::Cpu));
/// let k = Tensor::ones([1, 1, 4, 4], (Kind::Float, Device::Cpu));
/// let hidden = Tensor::from_slice(&[false, true, false, true]);
/// let expected = Tensor::from_slice(&[0.5f32, 0.0, 0.5, 0.0]);
/// assert_eq!(libtorch::softmax_scores(&q, &k, 0.5, Some(&hidden)).view([4]), expected);
/// ```
pub fn softmax_scores(q: &Tensor, k: &Tensor, scale: f64, hidden: Option<&Tensor>) -> Tensor {
    let masked = |scores: Tensor| match hidden {
        Some(hidden) => scores.masked_fill(hidden, f64::NEG_INFINITY),
        None => scores,
    };
    if fuses(q) && k.numel() > 0 {
        let scores = masked(q.matmul(&k.transpose(2, 3)));
        // Safety: the tensor lives during the call.
        return or_panic(unsafe { made(|to| shim::shim_softmax(scores.as_ptr(), scale, to)) });
    }
    // Before the product, which half precision could not hold otherwise.
    masked((q * scale).matmul(&k.transpose(2, 3))).softmax(-1, q.kind())
}
