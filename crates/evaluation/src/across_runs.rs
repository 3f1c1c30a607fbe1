//! The same prompts, evaluated for several runs that differ in their subject or seed.

use std::collections::BTreeMap;

use runs::{AcrossRuns, Differences, Evaluation, ImageScores};
use statistics::{Bootstrap, bootstrap_mean};

/// Pools the images of all variants in each of the evaluations, a run each. A run without images has no mean (NaN).
pub fn across_runs(evaluations: &[&Evaluation], bootstrap: &Bootstrap) -> AcrossRuns {
    let groups = |score: fn(&ImageScores) -> f64| -> Vec<Vec<f64>> {
        let of_run = |evaluation: &&Evaluation| {
            let prompts = evaluation.variants.iter().flat_map(|variant| &variant.scores.prompts);
            prompts.flat_map(|prompt| &prompt.images).map(score).collect()
        };
        evaluations.iter().map(of_run).collect()
    };
    let (clip_i, clip_t) = (groups(|image| image.scores.clip_i), groups(|image| image.scores.clip_t));
    let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let by_run = clip_i.iter().zip(&clip_t).map(|(i, t)| [mean(i), mean(t)]).collect();
    AcrossRuns { clip_i: bootstrap_mean(&clip_i, bootstrap), clip_t: bootstrap_mean(&clip_t, bootstrap), by_run }
}

/// The scores of `ours` less `other`'s, whose runs are of the same `subjects` and seeds in the same order. The interval says
/// what other subjects and seeds might have given; of fewer than some six subjects it is narrower than the truth.
pub fn paired_differences<S: Ord>(
    ours: &AcrossRuns,
    other: &AcrossRuns,
    subjects: &[S],
    bootstrap: &Bootstrap,
) -> Differences {
    let of = |which: usize| {
        let mut by_subject: BTreeMap<&S, Vec<f64>> = BTreeMap::new();
        for ((a, b), subject) in ours.by_run.iter().zip(&other.by_run).zip(subjects) {
            by_subject.entry(subject).or_default().push(a[which] - b[which]);
        }
        bootstrap_mean(&by_subject.into_values().collect::<Vec<_>>(), bootstrap)
    };
    Differences { clip_i: of(0), clip_t: of(1) }
}

#[cfg(test)]
mod tests {
    use statistics::Estimate;

    use super::*;

    #[test]
    fn what_runs_have_in_common_is_in_no_difference() {
        let scores = |by_run: &[[f64; 2]]| {
            let nothing = Estimate { mean: 0.0, low: 0.0, high: 0.0 };
            AcrossRuns { clip_i: nothing, clip_t: nothing, by_run: by_run.to_vec() }
        };
        let (easy, hard) = ([0.9, 0.8], [0.2, 0.7]);
        let better = scores(&[[easy[0] + 0.1, easy[1] - 0.2], [hard[0] + 0.1, hard[1] + 0.2]]);
        let differences = paired_differences(&better, &scores(&[easy, hard]), &["easy", "hard"], &Bootstrap::default());
        for value in [differences.clip_i.mean, differences.clip_i.low, differences.clip_i.high] {
            assert!((value - 0.1).abs() < 1e-12, "{value}");
        }
        // One subject lower, one higher by the same: all between is possible.
        let Estimate { mean, low, high } = differences.clip_t;
        assert!(mean.abs() < 1e-12 && (low + 0.2).abs() < 1e-12 && (high - 0.2).abs() < 1e-12);
    }
}
