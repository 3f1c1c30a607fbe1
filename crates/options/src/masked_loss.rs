//! What a loss under a mask is divided by.

use serde::{Deserialize, Serialize};

/// How the squared error within a mask of one channel becomes a sample's loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum MaskedLoss {
    /// Its mean over the mask, as without a mask.
    #[default]
    Mean,
    /// Its sum over all channels, divided by the mask's cells: the code of Custom Diffusion's authors and diffusers',
    /// in which the subject's loss so weighs four times as much as the prior's.
    Reference,
}
