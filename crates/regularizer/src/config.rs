//! What may be chosen.

use anyhow::{Result, ensure};
pub use options::regularizer::{Batch, Category, Mode};
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
