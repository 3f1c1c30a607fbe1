//! Random orders, and the keys of what is drawn in a phase.

use libtorch::random;

/// The numbers below `n` in an order that depends on the seed (Fisher and Yates).
pub(crate) fn permutation(seed: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (random::derive(seed, "swap", i as u64) % (i as u64 + 1)) as usize);
    }
    order
}

/// A number for a phase and a count within it.
pub(crate) fn key(phase: usize, count: usize) -> u64 {
    (phase as u64 + 1) << 48 | count as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_permutations_and_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let order = permutation(seed, 4);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            seen.insert(order);
        }
        assert_eq!(seen.len(), 24);
    }
}
