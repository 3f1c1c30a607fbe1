//! Where a reference shows the subject, and how the token is to attend to it. Section 3.3 and 3.4 of the paper.

use tch::{Kind, Tensor};

/// The thresholds that are tried, in tenths. None of 0: no pixel is below it.
const CANDIDATES: [f32; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// Maps [n, pixels] from 0 to 1 each; NaN where all of a map is the same.
pub fn normalized(maps: &Tensor) -> Tensor {
    let least = maps.amin([1i64].as_slice(), true);
    let most = maps.amax([1i64].as_slice(), true);
    (maps - &least) / (most - &least)
}

/// Otsu's threshold of each normalised map [n, pixels], f32, among .1 to .9: that which parts the pixels best,
/// by the largest w₀ w₁ (m₀ - m₁)², the first of equals. Both parts have pixels; 0 where no threshold has two parts that differ.
pub fn otsu(normalized: &Tensor) -> Tensor {
    let device = normalized.device();
    let candidates = libtorch::upload(&Tensor::from_slice(&CANDIDATES), device);
    let pixels = normalized.size()[1] as f64;
    // [n, candidates, pixels]; sums in f64, so that equals stay equal.
    let above = normalized.unsqueeze(1).ge_tensor(&candidates.unsqueeze(-1));
    let count_above = above.sum_dim_intlist([2i64].as_slice(), false, Kind::Double);
    let values = normalized.to_kind(Kind::Double);
    let sum = values.sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
    let sum_above = (values.unsqueeze(1) * &above).sum_dim_intlist([2i64].as_slice(), false, Kind::Double);
    let count_below = pixels - &count_above;
    let gap = &sum_above / &count_above - (sum - &sum_above) / &count_below;
    let between = &count_above * &count_below * gap.square() / (pixels * pixels);
    let parted = count_above.gt(0.0).logical_and(&count_below.gt(0.0));
    let between = between.where_self(&parted, &between.zeros_like());
    let best = between.amax([1i64].as_slice(), true);
    let is_best = between.eq_tensor(&best).logical_and(&best.gt(0.0));
    // More than any, where it is not the best.
    let first = candidates.where_self(&is_best, &candidates.full_like(2.0)).amin([1i64].as_slice(), false);
    first.where_self(&first.lt(1.0), &first.zeros_like())
}

/// Which pixels of maps [n, pixels], of any dtype, show the subject, as bools: those that reach [`otsu`]'s threshold, or where there
/// is none, those above the least; all of a map that is the same everywhere. At least one of each map, and without gradients.
pub fn subject(maps: &Tensor) -> Tensor {
    let normalized = normalized(&maps.detach().to_kind(Kind::Float));
    let threshold = otsu(&normalized).unsqueeze(-1);
    let kept = normalized.ge_tensor(&threshold).logical_and(&normalized.gt(0.0));
    kept.logical_or(&normalized.isnan())
}

/// The regulariser of one layer, of shape []: the mean over samples and pixels of (a / max a - e / max e)², where a is the attention
/// to the token and e that to the end of text, from which no gradient comes; `maps` [batch, 2, pixels] has both in this order.
pub fn attention_loss(maps: &Tensor) -> Tensor {
    // Attention that has underflown, as bf16's may, is no NaN.
    let scaled = |xs: &Tensor| xs / xs.amax([1i64].as_slice(), true).clamp_min(f64::from(f32::MIN_POSITIVE));
    let (token, end) = (maps.select(1, 0), maps.select(1, 1).detach());
    (scaled(&token) - scaled(&end)).square().mean(maps.kind())
}
