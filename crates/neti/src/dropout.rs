//! Nested dropout: the later numbers of the hidden layer learn what the earlier ones leave.

use libtorch::random;
use tch::Tensor;

use crate::Config;

/// How many of the hidden numbers are kept, [layers, samples] i64: each layer's call is under dropout with the configuration's
/// probability, and each of its samples then keeps 0 to `hidden` - 1; otherwise all are kept.
pub fn nested_dropout(config: &Config, seed: u64, layers: usize, samples: usize) -> Tensor {
    let (layers, samples) = (layers as i64, samples as i64);
    let kept = random::integers(random::derive(seed, "kept", 0), config.hidden, &[layers, samples]);
    let drops = random::uniform(random::derive(seed, "calls", 0), &[layers, 1]).lt(config.dropout);
    kept.where_self(&drops, &Tensor::from(config.hidden))
}
