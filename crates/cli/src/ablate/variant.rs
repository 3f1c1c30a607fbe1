//! The method, whole or without a part.

use clap::ValueEnum;
use serde::Serialize;

/// The method, whole or without a part.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Variant {
    /// The whole method
    Full,
    /// Without learning the embedding first
    WithoutStage1,
    /// Without tuning cross-attention first
    WithoutStage2,
    /// Without tuning the whole U-Net
    WithoutStage3,
    /// Without regularising attention
    WithoutRegularizer,
}

impl Variant {
    pub(crate) const ALL: [Self; 5] =
        [Self::Full, Self::WithoutStage1, Self::WithoutStage2, Self::WithoutStage3, Self::WithoutRegularizer];

    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it sets in the configuration.
    pub(crate) fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[],
            Self::WithoutStage1 => &["embedding.steps=0"],
            Self::WithoutStage2 => &["cross_attention.steps=0"],
            Self::WithoutStage3 => &["unet.steps=0"],
            Self::WithoutRegularizer => &[
                "embedding.lambda_mean=0",
                "embedding.lambda_variance=0",
                "cross_attention.lambda_mean=0",
                "cross_attention.lambda_variance=0",
                "unet.lambda_mean=0",
                "unet.lambda_variance=0",
            ],
        }
    }
}
