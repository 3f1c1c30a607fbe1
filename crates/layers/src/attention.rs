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
    let fused = |q: &Tensor, k: &Tensor, v: &Tensor| {
        Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, causal, None, false)
    };
    // LibTorch's CPU kernel is slow backward in half precision: upcast it takes half the time, spelt out even less. Spelt
    // out it needs all scores at once (and f16 ones could overflow), so only few of them are.
    match (q.device(), q.kind()) {
        (Device::Cpu, Kind::BFloat16) if q.size()[2] * k.size()[2] <= FEW_SCORES => spelt_out(q, k, v, causal),
        (Device::Cpu, kind @ (Kind::BFloat16 | Kind::Half)) => {
            let [q, k, v] = [q, k, v].map(|xs| xs.to_kind(Kind::Float));
            fused(&q, &k, &v).to_kind(kind)
        }
        _ => fused(q, k, v),
    }
}

/// As many scores a head as a feature map of 16 x 16 has with itself.
const FEW_SCORES: i64 = 256 * 256;

fn spelt_out(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Tensor {
    if !causal {
        return attention_probabilities(q, k, false).matmul(v);
    }
    let scores = scores(q, k);
    let future = Tensor::ones([q.size()[2], k.size()[2]], (Kind::Bool, q.device())).triu(1);
    scores.masked_fill(&future, f64::NEG_INFINITY).softmax(-1, scores.kind()).matmul(v)
}

fn scores(q: &Tensor, k: &Tensor) -> Tensor {
    let d = q.size()[3] as f64;
    (q * d.powf(-0.5)).matmul(&k.transpose(2, 3))
}

/// softmax(q kᵀ / √d) itself, of shape [batch, heads, q tokens, k tokens], for q and k as in [`attention`].
///
/// With `upcast` the scores and their softmax are computed in f32 whatever the dtype of q (the config's
/// `upcast_attention`: half-precision scores overflow in Stable Diffusion 2.1). The result has q's dtype.
pub fn attention_probabilities(q: &Tensor, k: &Tensor, upcast: bool) -> Tensor {
    let kind = q.kind();
    let scores = if upcast { scores(&q.to_kind(Kind::Float), &k.to_kind(Kind::Float)) } else { scores(q, k) };
    scores.softmax(-1, scores.kind()).to_kind(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attention of seeded q, k, v computed in `kind`, and the gradients of a sum of it, all in f32.
    fn computed_in(kind: Kind, tokens: [i64; 2], causal: bool) -> [Tensor; 4] {
        tch::manual_seed(7);
        let normal = |seed, tokens| libtorch::random::normal(seed, &[2, 3, tokens, 16]);
        let leaf = |(seed, tokens)| normal(seed, tokens).set_requires_grad(true);
        let [q, k, v] = [(1, tokens[0]), (2, tokens[1]), (3, tokens[1])].map(leaf);
        let weight = normal(4, tokens[0]);
        let [q_in, k_in, v_in] = [&q, &k, &v].map(|xs| xs.to_kind(kind));
        let out = attention(&q_in, &k_in, &v_in, causal);
        assert_eq!(out.kind(), kind);
        let out = out.to_kind(Kind::Float);
        (&out * weight).sum(Kind::Float).backward();
        [out.detach(), q.grad(), k.grad(), v.grad()]
    }

    #[test]
    fn half_precision_agrees_with_f32_whichever_way_it_goes() {
        // bf16 keeps 8 bits and f16 11: errors of sums of rounded terms stay within a few of their steps.
        for (kind, bound) in [(Kind::BFloat16, 2f64.powi(-6)), (Kind::Half, 2f64.powi(-9))] {
            for (tokens, causal) in [([64, 40], false), ([40, 40], true), ([300, 300], false), ([300, 300], true)] {
                let expected = computed_in(Kind::Float, tokens, causal);
                for (found, expected) in computed_in(kind, tokens, causal).iter().zip(&expected) {
                    let error = f64::try_from((found - expected).norm() / expected.norm()).unwrap();
                    assert!(error < bound, "{kind:?} {tokens:?} causal {causal}: relative error {error:.1e}");
                }
            }
        }
    }
}
