//! Random numbers from a seed, the same on every machine and in every version.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The seed, in the first 8 bytes of the key (little-endian), sets a ChaCha8 generator; of its 64-bit outputs the upper
/// 53 bits, divided by 2^53, are numbers in 0..1.
pub(crate) struct Unit(ChaCha8Rng);

impl Unit {
    pub(crate) fn new(seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    pub(crate) fn next(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of the numbers from `first` to `last`, each as likely; `first` where there is none.
    pub(crate) fn integer(&mut self, first: u32, last: u32) -> u32 {
        let count = u64::from(last.saturating_sub(first)) + 1;
        first + (self.next() * count as f64) as u32
    }
}
