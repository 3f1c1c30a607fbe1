//! Random draws, and the quantiles of what they give.

use options::derive_seed;

/// Numbers that depend on the seed and on how many came before.
pub(crate) struct Draws {
    seed: u64,
    count: u64,
}

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.count += 1;
        let draw = u128::from(derive_seed(self.seed, "bootstrap", self.count));
        // The upper half of the product: uniform but for a part in 2^64 / n.
        ((draw * n as u128) >> 64) as usize
    }
}

/// Between the two nearest of `sorted`, as numpy's `quantile`.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}
