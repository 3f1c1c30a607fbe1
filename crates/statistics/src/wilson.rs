//! How far a share that was counted may be from the true one.

use serde::{Deserialize, Serialize};

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Those that are counted.
    pub count: u64,
    /// All.
    pub of: u64,
}

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % interval of a binomial proportion after Wilson (*Journal of the American Statistical Association* 22, 1927),
/// from 0 to 1. Without trials it is everything.
///
/// ```
/// let (low, high) = statistics::wilson(65, 100);
/// assert!(low > 0.55 && high < 0.74);
/// ```
pub fn wilson(successes: u64, trials: u64) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (trials as f64, successes as f64 / trials as f64);
    let z2 = Z * Z;
    let center = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // Of none, and of all, the interval ends there exactly.
    let low = if successes == 0 { 0.0 } else { center - half };
    let high = if successes == trials { 1.0 } else { center + half };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.binomtest(k, n).proportion_ci(method="wilson")` of SciPy 1.17.1.
    const SCIPY: [(u64, u64, f64, f64); 8] = [
        (0, 10, 0.0, 0.27753279986288926),
        (10, 10, 0.7224672001371109, 1.0),
        (1, 1, 0.20654931437723745, 1.0),
        (7, 10, 0.39677814746114526, 0.892208732593699),
        (476, 700, 0.6445416164216193, 0.7134935587472788),
        (65, 100, 0.5525444329688796, 0.7363575175690247),
        (3, 1000, 0.0010207838811386186, 0.008783014053503173),
        (34, 41, 0.6873738759959582, 0.9147474802240501),
    ];

    #[test]
    fn intervals_are_those_of_scipy() {
        for (successes, trials, low, high) in SCIPY {
            let (ours_low, ours_high) = wilson(successes, trials);
            assert!((ours_low - low).abs() < 1e-12 && (ours_high - high).abs() < 1e-12, "{successes} of {trials}");
        }
    }

    #[test]
    fn none_and_all_mirror_each_other_and_nothing_says_nothing() {
        let ((low, high), (mirrored_low, mirrored_high)) = (wilson(3, 17), wilson(14, 17));
        assert!((low - (1.0 - mirrored_high)).abs() < 1e-12 && (high - (1.0 - mirrored_low)).abs() < 1e-12);
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }
}
