//! The same prompts, evaluated for several runs that differ in their seed.

use serde::{Deserialize, Serialize};

use crate::{Bootstrap, Estimate, ImageScores, Record, bootstrap_mean};

/// Scores over several runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcrossSeeds {
    /// CLIP-I; the interval says what other seeds and pictures might have given.
    pub clip_i: Estimate,
    /// CLIP-T with the category, likewise.
    pub clip_t: Estimate,
    /// The means of CLIP-I and CLIP-T of each run.
    pub by_seed: Vec<[f64; 2]>,
}

impl AcrossSeeds {
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
        let by_seed = clip_i.iter().zip(&clip_t).map(|(i, t)| [mean(i), mean(t)]).collect();
        Self { clip_i: bootstrap_mean(&clip_i, bootstrap), clip_t: bootstrap_mean(&clip_t, bootstrap), by_seed }
    }
}
