//! Several comparisons at once, and what may be said of each.

use serde::{Deserialize, Serialize};

use crate::crossed::Resampled;
use crate::{Bootstrap, Crossed, Estimate};

/// The difference between two systems, beside others that are asked about at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The mean difference, with its interval at the level of the bootstrap.
    pub difference: Estimate,
    /// How likely so large a difference is where there is none, in two sides.
    pub p_value: f64,
    /// That of all comparisons together, after Holm.
    pub adjusted_p_value: f64,
    /// The interval at the level that Holm's procedure leaves to this difference: all of them hold at once at the bootstrap's.
    pub adjusted: Estimate,
}

/// Whether a claim holds that one system is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The interval lies beyond zero.
    Holds,
    /// The interval lies wholly below what was fixed beforehand as worth a claim.
    DoesNotHold,
    /// Anything else: more subjects, prompts or images would tell.
    CannotBeTold,
}

impl Compared {
    /// Whether the difference is positive, where less than `margin` is not worth a claim; by the adjusted interval.
    pub fn verdict(&self, margin: f64) -> Verdict {
        let Estimate { low, high, .. } = self.adjusted;
        match () {
            () if low > 0.0 => Verdict::Holds,
            () if high < margin => Verdict::DoesNotHold,
            () => Verdict::CannotBeTold,
        }
    }
}

/// Compares differences with zero, all at once (Holm, *Scandinavian Journal of Statistics* 6, 1979): the least likely by chance is
/// held to the strictest level.
pub fn holm(differences: &[Crossed], bootstrap: &Bootstrap) -> Vec<Compared> {
    let resampled: Vec<_> = differences.iter().map(|difference| difference.resampled(bootstrap)).collect();
    let p_values: Vec<f64> = resampled.iter().map(Resampled::p_value).collect();
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut compared = vec![None; order.len()];
    let mut adjusted_p_value = 0.0f64;
    for (rank, &place) in order.iter().enumerate() {
        let left = (order.len() - rank) as f64;
        // Never less than that of a difference which is less likely by chance.
        adjusted_p_value = adjusted_p_value.max((left * p_values[place]).min(1.0));
        compared[place] = Some(Compared {
            difference: resampled[place].interval(bootstrap.level),
            p_value: p_values[place],
            adjusted_p_value,
            adjusted: resampled[place].interval(1.0 - (1.0 - bootstrap.level) / left),
        });
    }
    compared.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossed(values: &[f64]) -> Crossed {
        Crossed::new(values.iter().map(|value| vec![vec![vec![*value]]]).collect()).unwrap()
    }

    /// `statsmodels.stats.multitest.multipletests(p, method="holm")[1]` of [.01, .04, .03, .005] is [.03, .06, .06, .02].
    #[test]
    fn the_least_likely_is_held_to_the_strictest_level() {
        let clear = crossed(&[0.3, 0.31, 0.29, 0.3, 0.32, 0.28]);
        let vague = crossed(&[0.3, -0.3, 0.2, -0.1, 0.25, -0.2]);
        let bootstrap = Bootstrap { resamples: 999, ..Bootstrap::default() };
        let compared = holm(&[vague.clone(), clear.clone(), vague], &bootstrap);
        assert!((compared[1].p_value - 0.002).abs() < 1e-12, "{:?}", compared[1]);
        assert!((compared[1].adjusted_p_value - 0.006).abs() < 1e-12);
        assert!(compared[1].adjusted.low < compared[1].difference.low + 1e-12);
        assert_eq!(compared[0].adjusted_p_value, compared[2].adjusted_p_value);
        assert!(compared[0].adjusted_p_value >= compared[0].p_value);
        assert!(holm(&[], &bootstrap).is_empty());
        // Alone, nothing is adjusted.
        let alone = holm(&[clear], &bootstrap)[0];
        assert_eq!((alone.adjusted, alone.adjusted_p_value), (alone.difference, alone.p_value));
    }

    #[test]
    fn a_claim_holds_beyond_zero_and_not_below_the_margin() {
        let verdict = |values: &[f64]| holm(&[crossed(values)], &Bootstrap::default())[0].verdict(0.05);
        assert_eq!(verdict(&[0.3, 0.31, 0.29, 0.3]), Verdict::Holds);
        assert_eq!(verdict(&[-0.3, -0.31, -0.29, -0.3]), Verdict::DoesNotHold);
        assert_eq!(verdict(&[0.01, -0.01, 0.02, -0.02]), Verdict::DoesNotHold);
        assert_eq!(verdict(&[0.3, -0.3, 0.2, -0.1]), Verdict::CannotBeTold);
    }
}
