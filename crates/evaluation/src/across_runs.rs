//! The same prompts, evaluated for several runs that differ in their subject or seed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bootstrap, Estimate, ImageScores, Record, bootstrap_mean};

/// Scores over several runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcrossRuns {
    /// CLIP-I; the interval says what other runs and pictures might have given.
    pub clip_i: Estimate,
    /// CLIP-T with the category, likewise.
    pub clip_t: Estimate,
    /// The means of CLIP-I and CLIP-T of each run.
    pub by_run: Vec<[f64; 2]>,
}

/// How much higher one way's scores are than another's, run by run: what runs have in common, such as a subject that is
/// hard, is in neither.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Differences {
    /// Of CLIP-I.
    pub clip_i: Estimate,
    /// Of CLIP-T with the category.
    pub clip_t: Estimate,
}

impl AcrossRuns {
    /// Pools the pictures of all variants in each of the records, a run each. A run without pictures has no mean (NaN).
    pub fn of(records: &[Record], bootstrap: &Bootstrap) -> Self {
        let groups = |score: fn(&ImageScores) -> f64| -> Vec<Vec<f64>> {
            let of_run = |record: &Record| {
                let prompts = record.variants.iter().flat_map(|variant| &variant.scores.prompts);
                prompts.flat_map(|prompt| &prompt.images).map(score).collect()
            };
            records.iter().map(of_run).collect()
        };
        let (clip_i, clip_t) = (groups(|image| image.scores.clip_i), groups(|image| image.scores.clip_t));
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let by_run = clip_i.iter().zip(&clip_t).map(|(i, t)| [mean(i), mean(t)]).collect();
        Self { clip_i: bootstrap_mean(&clip_i, bootstrap), clip_t: bootstrap_mean(&clip_t, bootstrap), by_run }
    }

    /// These scores less `other`'s, whose runs are of the same `subjects` and seeds in the same order. The interval says
    /// what other subjects and seeds might have given; of fewer than some six subjects it is narrower than the truth.
    pub fn minus<S: Ord>(&self, other: &Self, subjects: &[S], bootstrap: &Bootstrap) -> Differences {
        let of = |which: usize| {
            let mut by_subject: BTreeMap<&S, Vec<f64>> = BTreeMap::new();
            for ((a, b), subject) in self.by_run.iter().zip(&other.by_run).zip(subjects) {
                by_subject.entry(subject).or_default().push(a[which] - b[which]);
            }
            bootstrap_mean(&by_subject.into_values().collect::<Vec<_>>(), bootstrap)
        };
        Differences { clip_i: of(0), clip_t: of(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_have_in_common_is_in_no_difference() {
        let scores = |by_run: &[[f64; 2]]| {
            let nothing = Estimate { mean: 0.0, low: 0.0, high: 0.0 };
            AcrossRuns { clip_i: nothing, clip_t: nothing, by_run: by_run.to_vec() }
        };
        let (easy, hard) = ([0.9, 0.8], [0.2, 0.7]);
        let better = scores(&[[easy[0] + 0.1, easy[1] - 0.2], [hard[0] + 0.1, hard[1] + 0.2]]);
        let differences = better.minus(&scores(&[easy, hard]), &["easy", "hard"], &Bootstrap::default());
        for value in [differences.clip_i.mean, differences.clip_i.low, differences.clip_i.high] {
            assert!((value - 0.1).abs() < 1e-12, "{value}");
        }
        // One subject lower, one higher by the same: all between is possible.
        let Estimate { mean, low, high } = differences.clip_t;
        assert!(mean.abs() < 1e-12 && (low + 0.2).abs() < 1e-12 && (high - 0.2).abs() < 1e-12);
    }
}
