//! How the attention of \[V\] is compared with that of the class noun.

use serde::{Deserialize, Serialize};

/// Whether layers are compared one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schemars", schemars(rename = "RegularizerMode"))]
pub enum Mode {
    /// Each layer has its own mean and variance, and counts alike: the authors' code.
    #[default]
    PerLayer,
    /// The paper's equation 2: one mean and one unbiased variance of all values of all layers' maps together, so that
    /// large maps count more. Nothing is divided by the number of layers.
    Pooled,
}

/// How the losses of a batch's samples are reduced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schemars", schemars(rename = "RegularizerBatch"))]
pub enum Batch {
    /// They are added, so that the regulariser weighs more in a larger batch: the authors' code.
    #[default]
    Sum,
    /// They are averaged.
    Mean,
}

/// What stands for a class noun of several tokens, such as "teddy bear"; with one token there is no difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schemars", schemars(rename = "RegularizerCategory"))]
pub enum Category {
    /// The mean of its tokens' maps, value by value, of which the statistics are then taken.
    #[default]
    Mean,
    /// The first token's map: the authors' code.
    First,
}
