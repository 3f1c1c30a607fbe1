//! Scores of a system that was tried on every subject with every prompt.

use std::error::Error;
use std::fmt;

use crate::draws::{Draws, quantile};
use crate::{Bootstrap, Estimate};

/// Values by subject, training seed, prompt and image. Every subject has every prompt, in the same order, and at least one seed;
/// every prompt has at least one image.
///
/// Subjects and prompts are crossed: what makes a subject hard is in the values of all its prompts, and what makes a prompt hard is in
/// those of all subjects. Both are therefore resampled as wholes, each for itself (the pigeonhole bootstrap: Owen, *Annals of Applied
/// Statistics* 1, 2007), then the seeds within each subject that was drawn, then the images within each of their prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossed(Vec<Vec<Vec<Vec<f64>>>>);

/// Values that are not crossed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError(String);

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ShapeError {}

impl Crossed {
    /// From `values[subject][seed][prompt][image]`.
    ///
    /// # Errors
    /// Names the subject whose seeds, prompts or images are missing.
    pub fn new(values: Vec<Vec<Vec<Vec<f64>>>>) -> Result<Self, ShapeError> {
        let prompts = values.first().and_then(|seeds| seeds.first()).map_or(0, Vec::len);
        if prompts == 0 {
            return Err(ShapeError("there are no values: a subject with a prompt is needed".to_owned()));
        }
        for (subject, seeds) in values.iter().enumerate() {
            if seeds.is_empty() {
                return Err(ShapeError(format!("subject {subject} has no values")));
            }
            for of_seed in seeds {
                if of_seed.len() != prompts || of_seed.iter().any(Vec::is_empty) {
                    let with = of_seed.iter().filter(|images| !images.is_empty()).count();
                    let message = format!("subject {subject} has values of {with} prompts, but there are {prompts}");
                    return Err(ShapeError(message));
                }
            }
        }
        Ok(Self(values))
    }

    /// Each value changed.
    pub fn map(&self, mut change: impl FnMut(f64) -> f64) -> Self {
        let mut changed = self.clone();
        changed.0.iter_mut().flatten().flatten().flatten().for_each(|value| *value = change(*value));
        changed
    }

    /// The differences to another system's values, image by image: those of one subject, seed, prompt and number belong together.
    ///
    /// # Errors
    /// When the other system was not tried on the same.
    pub fn minus(&self, other: &Self) -> Result<Self, ShapeError> {
        let shape = |crossed: &Self| -> Vec<Vec<Vec<usize>>> {
            let of_seed = |prompts: &Vec<Vec<f64>>| prompts.iter().map(Vec::len).collect();
            crossed.0.iter().map(|seeds| seeds.iter().map(of_seed).collect()).collect()
        };
        if shape(self) != shape(other) {
            return Err(ShapeError("two systems have not the same subjects, seeds, prompts and images".to_owned()));
        }
        let mut theirs = other.0.iter().flatten().flatten().flatten();
        Ok(self.map(|value| value - theirs.next().copied().unwrap_or(f64::NAN)))
    }

    /// The mean over subjects of the mean over seeds of the mean over prompts of the mean over images.
    fn average(&self) -> f64 {
        let of_seed = |prompts: &Vec<Vec<f64>>| mean(prompts.iter().map(mean));
        mean(self.0.iter().map(|seeds| mean(seeds.iter().map(of_seed))))
    }

    /// The mean over subjects, prompts and images, with the interval that other such subjects, prompts, seeds and images might have
    /// given.
    pub fn mean(&self, bootstrap: &Bootstrap) -> Estimate {
        self.resampled(bootstrap).interval(bootstrap.level)
    }

    /// The sorted means of all resamplings.
    pub(crate) fn resampled(&self, bootstrap: &Bootstrap) -> Resampled {
        let mut draws = Draws::new(bootstrap.seed);
        let mut means: Vec<f64> = (0..bootstrap.resamples.max(1)).map(|_| self.resample(&mut draws)).collect();
        means.sort_by(f64::total_cmp);
        Resampled { mean: self.average(), means }
    }

    fn resample(&self, draws: &mut Draws) -> f64 {
        let prompts = self.0[0][0].len();
        let drawn: Vec<usize> = (0..prompts).map(|_| draws.below(prompts)).collect();
        let subject = |draws: &mut Draws| {
            let seeds = &self.0[draws.below(self.0.len())];
            let seed = |draws: &mut Draws| {
                let of_seed = &seeds[draws.below(seeds.len())];
                let prompt = |prompt: &usize| {
                    let images = &of_seed[*prompt];
                    mean((0..images.len()).map(|_| images[draws.below(images.len())]))
                };
                mean(drawn.iter().map(prompt))
            };
            mean_of(seeds.len(), draws, seed)
        };
        mean_of(self.0.len(), draws, subject)
    }
}

/// The means of all resamplings, sorted, and that of the values themselves.
pub(crate) struct Resampled {
    pub(crate) mean: f64,
    means: Vec<f64>,
}

impl Resampled {
    /// The percentile interval.
    pub(crate) fn interval(&self, level: f64) -> Estimate {
        let tail = (1.0 - level) / 2.0;
        Estimate { mean: self.mean, low: quantile(&self.means, tail), high: quantile(&self.means, 1.0 - tail) }
    }

    /// The least level at which the interval reaches zero, as a p-value of two sides: never zero, for other resamplings might have
    /// reached it (Davison and Hinkley, *Bootstrap Methods and their Application*, 4.2).
    pub(crate) fn p_value(&self) -> f64 {
        let share = |beyond: &dyn Fn(f64) -> bool| {
            let count = self.means.iter().filter(|mean| beyond(**mean)).count();
            (count + 1) as f64 / (self.means.len() + 1) as f64
        };
        (2.0 * share(&|mean| mean <= 0.0).min(share(&|mean| mean >= 0.0))).min(1.0)
    }
}

fn mean<T: std::borrow::Borrow<f64>>(values: impl IntoIterator<Item = T>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value.borrow();
        count += 1;
    }
    sum / f64::from(count)
}

fn mean_of(count: usize, draws: &mut Draws, mut one: impl FnMut(&mut Draws) -> f64) -> f64 {
    (0..count).map(|_| one(draws)).sum::<f64>() / count as f64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        values: Vec<Vec<Vec<Vec<f64>>>>,
        mean: f64,
        interval: [f64; 2],
        p_value: f64,
    }

    /// By numpy: all resamplings of a small design enumerated, larger ones drawn a million times.
    #[test]
    fn the_interval_approaches_that_of_numpy() {
        let text = std::fs::read_to_string(Path::new("../../fixtures/statistics/crossed.json")).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
        assert_eq!(cases.len(), 4);
        let bootstrap = Bootstrap { resamples: 100_000, ..Bootstrap::default() };
        for Case { values, mean, interval: [low, high], p_value } in cases {
            let resampled = Crossed::new(values).unwrap().resampled(&bootstrap);
            let found = resampled.interval(bootstrap.level);
            assert!((found.mean - mean).abs() < 1e-12);
            // Of 100,000 resamplings a quantile is known to some 2 % of the interval's width.
            let near = 0.02 * (high - low);
            assert!((found.low - low).abs() < near && (found.high - high).abs() < near, "{found:?}: {low} {high}");
            assert!((resampled.p_value() - p_value).abs() < 0.01, "{}: {p_value}", resampled.p_value());
        }
    }

    /// A prompt that is hard for all subjects makes the mean less certain than as many values that have nothing in common.
    #[test]
    fn what_subjects_or_prompts_have_in_common_widens_the_interval() {
        let width = |value: &dyn Fn(usize, usize) -> f64| {
            let values = (0..6).map(|s| vec![(0..8).map(|p| vec![value(s, p)]).collect()]).collect();
            let Estimate { low, high, .. } = Crossed::new(values).unwrap().mean(&Bootstrap::default());
            high - low
        };
        let spread = |i: usize| (i % 2) as f64;
        let of_prompts = width(&|_, p| spread(p));
        let of_subjects = width(&|s, _| spread(s));
        let of_neither = width(&|s, p| spread(s + p));
        assert!(of_prompts.min(of_subjects) > 1.5 * of_neither, "{of_prompts} {of_subjects} {of_neither}");
        assert_eq!(width(&|_, _| 0.5), 0.0);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |values| Crossed::new(values).unwrap_err().to_string();
        assert_eq!(error(vec![]), "there are no values: a subject with a prompt is needed");
        assert_eq!(error(vec![vec![vec![vec![1.0]]], vec![]]), "subject 1 has no values");
        let short = vec![vec![vec![vec![1.0], vec![2.0]]], vec![vec![vec![1.0], vec![]]]];
        assert_eq!(error(short), "subject 1 has values of 1 prompts, but there are 2");
        let one = Crossed::new(vec![vec![vec![vec![1.0]]]]).unwrap();
        let two = Crossed::new(vec![vec![vec![vec![1.0, 2.0]]]]).unwrap();
        assert!(one.minus(&two).unwrap_err().to_string().contains("the same subjects, seeds, prompts and images"));
        assert_eq!(two.minus(&two).unwrap(), two.map(|_| 0.0));
    }
}
