//! What may be chosen.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// How the statistics become a loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Whether layers are compared one by one.
    pub mode: Mode,
    /// What becomes of the samples of a batch.
    pub batch: Batch,
    /// What stands for a category of several tokens.
    pub category: Category,
    /// The weight of the means' squared difference: 0.1 in the paper's first stage, 2 in the others.
    pub lambda_mean: f64,
    /// The weight of the variances' squared difference: 0 in the paper's first stage, 5 in the others.
    pub lambda_variance: f64,
}

impl Default for Config {
    /// As the authors' code in the second and third stage, but that it takes the first token alone of a category of
    /// several.
    fn default() -> Self {
        Self {
            mode: Mode::PerLayer,
            batch: Batch::Sum,
            category: Category::Mean,
            lambda_mean: 2.0,
            lambda_variance: 5.0,
        }
    }
}

/// Whether layers are compared one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each layer has its own mean and variance, and counts alike: the authors' code.
    #[default]
    PerLayer,
    /// The paper's equation 2: one mean and one unbiased variance of all values of all layers' maps together, so that
    /// large maps count more. Nothing is divided by the number of layers.
    Pooled,
}

/// What becomes of the samples of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// The samples' losses are added, so that the regulariser weighs more in a larger batch: the authors' code.
    #[default]
    Sum,
    /// They are averaged.
    Mean,
}

/// What stands for a category of several tokens, such as "teddy bear"; with one token there is no difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// The mean of its tokens' maps, value by value, of which the statistics are then taken.
    #[default]
    Mean,
    /// The first token's map: the authors' code.
    First,
}

impl Config {
    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// Names the key and its value.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in [("lambda_mean", self.lambda_mean), ("lambda_variance", self.lambda_variance)] {
            ensure!(value >= 0.0 && value.is_finite(), "the regulariser's {key} is {value}, but must be zero or more");
        }
        Ok(())
    }
}
