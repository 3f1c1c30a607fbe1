//! Which samples of each batch a process computes.

use std::ops::Range;

use distributed::Group;
use methods::Reduction;

/// A process's part of each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    rank: usize,
    size: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { rank: 0, size: 1 };

    /// That of this process.
    pub fn of(group: &Group) -> Self {
        Self { rank: group.rank(), size: group.size() }
    }

    /// Whether other processes have parts.
    pub(crate) fn is_whole(self) -> bool {
        self.size == 1
    }

    /// Its samples of a batch of so many. Where there are fewer samples than processes, the last ones compute the first sample, which
    /// then weighs nothing: all have the same terms, and gradients of the same parameters.
    pub(crate) fn samples(self, batch: usize) -> Range<usize> {
        let own = self.own(batch);
        if own.is_empty() { 0..1 } else { own }
    }

    /// What a term of its samples weighs in the sum over all processes.
    pub(crate) fn weight(self, batch: usize, of_samples: Reduction) -> f64 {
        match (self.own(batch).len(), of_samples) {
            (0, _) => 0.0,
            (own, Reduction::Mean) => own as f64 / batch as f64,
            (_, Reduction::Sum) => 1.0,
        }
    }

    fn own(self, batch: usize) -> Range<usize> {
        distributed::share(batch, self.rank, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_counts_once_whatever_the_number_of_processes() {
        for (batch, size) in [(5, 2), (5, 3), (2, 3), (1, 4), (8, 1)] {
            for reduction in [Reduction::Mean, Reduction::Sum] {
                // Of each sample, what it adds to the whole, where the term of several is reduced.
                let mut counted = vec![0.0; batch];
                for rank in 0..size {
                    let share = Share { rank, size };
                    let samples = share.samples(batch);
                    let each = match reduction {
                        Reduction::Mean => 1.0 / samples.len() as f64,
                        Reduction::Sum => 1.0,
                    };
                    samples.for_each(|sample| counted[sample] += each * share.weight(batch, reduction));
                }
                let expected = if reduction == Reduction::Mean { 1.0 / batch as f64 } else { 1.0 };
                assert!(counted.iter().all(|counted: &f64| (counted - expected).abs() < 1e-15), "{batch} by {size}");
            }
        }
    }
}
