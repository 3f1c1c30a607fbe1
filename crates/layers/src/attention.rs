//! Scaled dot-product attention.

use tch::{Kind, Tensor};

/// [batch, tokens, heads · d] as [batch, heads, tokens, d].
pub fn split_heads(xs: &Tensor, heads: i64) -> Tensor {
    let (batch, tokens) = (xs.size()[0], xs.size()[1]);
    xs.reshape([batch, tokens, heads, -1]).transpose(1, 2)
}

/// [batch, heads, tokens, d] as [batch, tokens, heads · d].
pub fn merge_heads(xs: &Tensor) -> Tensor {
    xs.transpose(1, 2).flatten(2, 3)
}

/// softmax(q kᵀ / √d) v by LibTorch's fastest kernel, for q, k, v of shape [batch, heads, tokens, d].
///
/// With `causal`, a token sees itself and those before it.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, causal, None, false)
}

/// softmax(q kᵀ / √d) itself, of shape [batch, heads, q tokens, k tokens], for q and k as in [`attention`].
///
/// With `upcast` the scores and their softmax are computed in f32 whatever the kind of q (the config's
/// `upcast_attention`: half-precision scores overflow in Stable Diffusion 2.1). The result has q's kind.
pub fn attention_probabilities(q: &Tensor, k: &Tensor, upcast: bool) -> Tensor {
    let kind = q.kind();
    let d = q.size()[3] as f64;
    let (q, k) =
        if upcast { (q.to_kind(Kind::Float), k.to_kind(Kind::Float)) } else { (q.shallow_clone(), k.shallow_clone()) };
    let scores = (q * d.powf(-0.5)).matmul(&k.transpose(2, 3));
    let scores_kind = scores.kind();
    scores.softmax(-1, scores_kind).to_kind(kind)
}
