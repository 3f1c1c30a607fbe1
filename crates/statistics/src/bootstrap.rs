//! How far a mean can be trusted.

use crate::draws::{Draws, quantile};
use crate::{Bootstrap, Estimate};

/// The mean of the groups' means, and the percentile interval of a bootstrap in two levels (Davison and Hinkley,
/// *Bootstrap Methods and their Application*, 3.8): as many groups as there are are sampled with replacement, then from
/// each of them as many values as it has.
///
/// With the scores of each prompt's images as groups, the interval says what other such prompts and other seeds might
/// have given. A single group leaves its values alone to vary. Quantiles between two resampled means are interpolated. Empty
/// groups are left out; without any value, all is NaN.
pub fn bootstrap_mean(groups: &[Vec<f64>], bootstrap: &Bootstrap) -> Estimate {
    let groups: Vec<&[f64]> = groups.iter().map(Vec::as_slice).filter(|group| !group.is_empty()).collect();
    if groups.is_empty() {
        return Estimate { mean: f64::NAN, low: f64::NAN, high: f64::NAN };
    }
    let mean = groups.iter().map(|group| group.iter().sum::<f64>() / group.len() as f64).sum::<f64>();
    let mut draws = Draws::new(bootstrap.seed);
    let mut means: Vec<f64> = (0..bootstrap.resamples.max(1)).map(|_| resample(&groups, &mut draws)).collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - bootstrap.level) / 2.0;
    Estimate { mean: mean / groups.len() as f64, low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) }
}

fn resample(groups: &[&[f64]], draws: &mut Draws) -> f64 {
    let mut sum = 0.0;
    for _ in groups {
        let group = groups[draws.below(groups.len())];
        sum += group.iter().map(|_| group[draws.below(group.len())]).sum::<f64>() / group.len() as f64;
    }
    sum / groups.len() as f64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_interval_approaches_the_exact_bootstrap() {
        let golden = Path::new("../../fixtures/evaluation/scores.json");
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
        for case in golden["bootstrap"].as_array().unwrap() {
            let groups: Vec<Vec<f64>> = serde_json::from_value(case["groups"].clone()).unwrap();
            let bootstrap = Bootstrap { resamples: 100_000, ..Bootstrap::default() };
            let Estimate { mean, low, high } = bootstrap_mean(&groups, &bootstrap);
            assert!((mean - case["mean"].as_f64().unwrap()).abs() < 1e-12);
            let [exact_low, exact_high]: [f64; 2] = serde_json::from_value(case["interval"].clone()).unwrap();
            // Resampled means have steps; a quantile may fall on either side of one.
            assert!((low - exact_low).abs() < 0.03 && (high - exact_high).abs() < 0.03, "{low} {high}: {case}");
        }
    }

    /// Of many values, the interval of the mean is that of the normal distribution: ± 1.96 s / √n.
    #[test]
    fn many_values_make_a_normal_interval() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
        let error = (values.iter().map(|value| (value - 9.5).powi(2)).sum::<f64>() / 400.0).sqrt() / 20.0;
        let Estimate { mean, low, high } = bootstrap_mean(&[values], &Bootstrap::default());
        assert!((mean - 9.5).abs() < 1e-12);
        for reach in [mean - low, high - mean] {
            assert!((reach / (1.96 * error) - 1.0).abs() < 0.1, "{reach} {error}");
        }
    }

    #[test]
    fn a_seed_means_the_same_interval_and_one_value_none() {
        let groups = [vec![0.1, 0.7, 0.4], vec![0.3], vec![]];
        let estimate = bootstrap_mean(&groups, &Bootstrap::default());
        assert_eq!(estimate, bootstrap_mean(&groups, &Bootstrap::default()));
        assert_ne!(estimate, bootstrap_mean(&groups, &Bootstrap { seed: 1, ..Bootstrap::default() }));
        assert!((estimate.mean - 0.35).abs() < 1e-12);
        assert!(estimate.low >= 0.1 && estimate.high <= 0.7);
        let single = bootstrap_mean(&[vec![0.5]], &Bootstrap::default());
        assert_eq!([single.mean, single.low, single.high], [0.5; 3]);
        assert!(bootstrap_mean(&[], &Bootstrap::default()).mean.is_nan());
    }
}
