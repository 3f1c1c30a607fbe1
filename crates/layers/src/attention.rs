//! Scaled dot-product attention.

use tch::{Device, Kind, Tensor};

/// [batch, tokens, heads · d] as [batch, heads, tokens, d].
pub fn split_heads(xs: &Tensor, heads: i64) -> Tensor {
    let (batch, tokens) = (xs.size()[0], xs.size()[1]);
    xs.reshape([batch, tokens, heads, -1]).transpose(1, 2)
}

/// [batch, heads, tokens, d] as [batch, tokens, heads · d].
pub fn merge_heads(xs: &Tensor) -> Tensor {
    xs.transpose(1, 2).flatten(2, 3)
}

/// softmax(q kᵀ / √d) v by the fastest way there is, for q, k, v of shape [batch, heads, tokens, d].
///
/// With `causal`, a token sees itself and those before it. The result has q's dtype; the scores are kept in f32, but for
/// small bf16 ones on a CPU.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Tensor {
    masked(q, k, v, if causal { Mask::Causal } else { Mask::None })
}

/// The same, where all of a sample's queries see only those keys that `kept` [batch, k tokens], of bools, has. A sample without
/// any has no attention: NaN.
pub fn attention_to(q: &Tensor, k: &Tensor, v: &Tensor, kept: &Tensor) -> Tensor {
    masked(q, k, v, Mask::Kept(&kept.unsqueeze(1).unsqueeze(1)))
}

/// Which keys a query sees.
#[derive(Clone, Copy)]
enum Mask<'a> {
    None,
    Causal,
    /// [batch, 1, 1, k tokens], of bools.
    Kept(&'a Tensor),
}

fn masked(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask<'_>) -> Tensor {
    let fused = |q: &Tensor, k: &Tensor, v: &Tensor| {
        let (causal, kept) = match mask {
            Mask::None => (false, None),
            Mask::Causal => (true, None),
            // Added to the scores: not every device's kernel takes bools.
            Mask::Kept(kept) => {
                let nothing = Tensor::zeros(kept.size(), (q.kind(), q.device()));
                (false, Some(nothing.masked_fill(&kept.logical_not(), f64::NEG_INFINITY)))
            }
        };
        Tensor::scaled_dot_product_attention(q, k, v, kept.as_ref(), 0.0, causal, None, false)
    };
    // LibTorch's CPU kernel is slow backward in half precision: upcast it takes half the time, spelt out even less. Spelt
    // out it needs all scores at once (and f16 ones could overflow), so only few of them are.
    match (q.device(), q.kind()) {
        (Device::Cpu, Kind::BFloat16) if q.size()[2] * k.size()[2] <= FEW_SCORES => spelt_out(q, k, v, mask),
        (Device::Cpu, kind @ (Kind::BFloat16 | Kind::Half)) => {
            let [q, k, v] = [q, k, v].map(|xs| xs.to_kind(Kind::Float));
            fused(&q, &k, &v).to_kind(kind)
        }
        _ => fused(q, k, v),
    }
}

/// As many scores a head as a feature map of 16 x 16 has with itself.
const FEW_SCORES: i64 = 256 * 256;

fn spelt_out(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask<'_>) -> Tensor {
    let hidden = match mask {
        Mask::None => None,
        Mask::Causal => Some(Tensor::ones([q.size()[2], k.size()[2]], (Kind::Bool, q.device())).triu(1)),
        Mask::Kept(kept) => Some(kept.logical_not()),
    };
    libtorch::softmax_scores(q, k, scale(q), hidden.as_ref()).matmul(v)
}

/// 1 / √d
fn scale(q: &Tensor) -> f64 {
    (q.size()[3] as f64).powf(-0.5)
}

/// softmax(q kᵀ / √d) itself, of shape [batch, heads, q tokens, k tokens], for q and k as in [`attention`].
///
/// With `upcast` the scores and their softmax are computed in f32 whatever the dtype of q (the config's
/// `upcast_attention`: half-precision scores overflow in Stable Diffusion 2.1). The result has q's dtype.
pub fn attention_probabilities(q: &Tensor, k: &Tensor, upcast: bool) -> Tensor {
    let kind = if upcast { Kind::Float } else { q.kind() };
    libtorch::softmax_scores(&q.to_kind(kind), &k.to_kind(kind), scale(q), None).to_kind(q.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`computed_in`] calls.
    #[derive(Debug, Clone, Copy)]
    enum Which {
        All,
        Causal,
        /// Of the first sample the first half of the keys, of the others all but the first one.
        Kept,
    }

    /// The attention of seeded q, k, v computed in `kind`, and the gradients of a sum of it, all in f32.
    fn computed_in(kind: Kind, tokens: [i64; 2], which: Which) -> [Tensor; 4] {
        tch::manual_seed(7);
        let normal = |seed, tokens| libtorch::random::normal(seed, &[2, 3, tokens, 16]);
        let leaf = |(seed, tokens)| normal(seed, tokens).set_requires_grad(true);
        let [q, k, v] = [(1, tokens[0]), (2, tokens[1]), (3, tokens[1])].map(leaf);
        let weight = normal(4, tokens[0]);
        let [q_in, k_in, v_in] = [&q, &k, &v].map(|xs| xs.to_kind(kind));
        let out = match which {
            Which::All => attention(&q_in, &k_in, &v_in, false),
            Which::Causal => attention(&q_in, &k_in, &v_in, true),
            Which::Kept => attention_to(&q_in, &k_in, &v_in, &kept(tokens[1])),
        };
        assert_eq!(out.kind(), kind);
        let out = out.to_kind(Kind::Float);
        (&out * weight).sum(Kind::Float).backward();
        [out.detach(), q.grad(), k.grad(), v.grad()]
    }

    #[test]
    fn half_precision_agrees_with_f32_whichever_way_it_goes() {
        // bf16 keeps 8 bits and f16 11: errors of sums of rounded terms stay within a few of their steps.
        for (kind, bound) in [(Kind::BFloat16, 2f64.powi(-6)), (Kind::Half, 2f64.powi(-9))] {
            for (tokens, which) in [
                ([64, 40], Which::All),
                ([40, 40], Which::Causal),
                ([64, 40], Which::Kept),
                ([300, 300], Which::All),
                ([300, 300], Which::Causal),
                ([300, 300], Which::Kept),
            ] {
                let expected = computed_in(Kind::Float, tokens, which);
                for (found, expected) in computed_in(kind, tokens, which).iter().zip(&expected) {
                    let error = f64::try_from((found - expected).norm() / expected.norm()).unwrap();
                    assert!(error < bound, "{kind:?} {tokens:?} {which:?}: relative error {error:.1e}");
                }
            }
        }
    }

    fn kept(keys: i64) -> Tensor {
        let numbers = Tensor::arange(keys, (Kind::Int64, Device::Cpu));
        Tensor::stack(&[numbers.lt(keys / 2), numbers.gt(0)], 0)
    }

    /// What is not kept may as well not be there.
    #[test]
    fn attention_to_some_keys_is_attention_without_the_others() {
        let normal = |seed, tokens| libtorch::random::normal(seed, &[2, 3, tokens, 16]);
        let (q, k, v) = (normal(1, 64), normal(2, 40), normal(3, 40));
        let found = attention_to(&q, &k, &v, &kept(40));
        for (sample, first, count) in [(0, 0, 20), (1, 1, 39)] {
            let [q, k, v] = [&q, &k, &v].map(|xs| xs.narrow(0, sample, 1));
            let [k, v] = [k, v].map(|xs| xs.narrow(2, first, count));
            let expected = attention(&q, &k, &v, false).get(0);
            let error = (found.get(sample) - &expected).abs().max() / expected.abs().max();
            assert!(f64::try_from(error).unwrap() < 1e-6);
        }
    }
}
