//! What is learned beside a U-Net's weights.

use serde::{Deserialize, Serialize};

use crate::optimizer::OutOfRange;

/// An adapter of the linear layers in a U-Net's transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Adapter {
    /// LoRA (arXiv 2106.09685): W + alpha / rank · B A.
    Lora {
        /// The rank of the change.
        #[serde(default = "rank")]
        rank: u32,
        /// The change is multiplied by alpha / rank; unset, the rank.
        #[serde(default)]
        alpha: Option<f64>,
        /// Which layers.
        #[serde(default)]
        targets: LoraTargets,
    },
    /// OFT (arXiv 2306.07280): the inputs of each attention layer are rotated, in blocks.
    Oft {
        /// The blocks that a layer's inputs are split into.
        #[serde(default = "blocks")]
        blocks: u32,
        /// COFT's eps: a block of b inputs stays within eps · b² / √blocks of no rotation. Unset, anywhere.
        #[serde(default)]
        constraint: Option<f64>,
    },
}

/// Which layers LoRA changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum LoraTargets {
    /// Queries, keys, values and outputs of self- and cross-attention
    #[default]
    Attention,
    /// All linear layers and 1x1 convolutions of the transformers, as kohya's scripts
    Kohya,
}

/// In whose keys a LoRA's file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum LoraKeys {
    /// kohya's scripts, A1111's web UI and ComfyUI; the embedding is in the file
    #[default]
    Kohya,
    /// diffusers
    Diffusers,
}

fn rank() -> u32 {
    32
}

fn blocks() -> u32 {
    4
}

impl Adapter {
    /// LoRA of rank 32 on attention.
    pub fn lora() -> Self {
        Self::Lora { rank: rank(), alpha: None, targets: LoraTargets::default() }
    }

    /// OFT of 4 blocks.
    pub fn oft() -> Self {
        Self::Oft { blocks: blocks(), constraint: None }
    }

    /// COFT with the paper's eps.
    pub fn coft() -> Self {
        Self::Oft { blocks: blocks(), constraint: Some(6e-5) }
    }

    /// Checks the ranges of the values; whether they fit a layer is known when they meet it.
    ///
    /// # Errors
    /// Names the key and its value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        let (count, number) = match *self {
            Self::Lora { rank, alpha, .. } => {
                (("the adapter's rank", rank), alpha.map(|alpha| ("the adapter's alpha", alpha)))
            }
            Self::Oft { blocks, constraint } => {
                (("the adapter's blocks", blocks), constraint.map(|eps| ("the adapter's constraint", eps)))
            }
        };
        if count.1 == 0 {
            return Err(OutOfRange { key: count.0, value: 0.0, allowed: "one or more" });
        }
        match number {
            Some((key, value)) if !(value > 0.0 && value.is_finite()) => {
                Err(OutOfRange { key, value, allowed: "more than zero" })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_keys_have_the_defaults() {
        let read = |json: &str| serde_json::from_str::<Adapter>(json).unwrap();
        assert_eq!(read(r#"{"type": "lora"}"#), Adapter::lora());
        assert_eq!(read(r#"{"type": "oft"}"#), Adapter::oft());
        assert_eq!(read(r#"{"type": "oft", "constraint": 6e-5}"#), Adapter::coft());
        let kohya = Adapter::Lora { rank: 8, alpha: Some(4.0), targets: LoraTargets::Kohya };
        assert_eq!(read(r#"{"type": "lora", "rank": 8, "alpha": 4, "targets": "kohya"}"#), kohya);
        assert_eq!(read(&serde_json::to_string(&kohya).unwrap()), kohya);
        assert!(serde_json::from_str::<Adapter>(r#"{"type": "lora", "blocks": 4}"#).is_err());
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_name() {
        let says = |adapter: Adapter| adapter.validate().unwrap_err().to_string();
        let lora = |rank, alpha| Adapter::Lora { rank, alpha, targets: LoraTargets::Attention };
        assert_eq!(says(lora(0, None)), "the adapter's rank is 0, but must be one or more");
        assert_eq!(says(lora(1, Some(f64::NAN))), "the adapter's alpha is NaN, but must be more than zero");
        let coft = Adapter::Oft { blocks: 4, constraint: Some(0.0) };
        assert_eq!(says(coft), "the adapter's constraint is 0, but must be more than zero");
        assert!([Adapter::lora(), Adapter::oft(), Adapter::coft()].iter().all(|adapter| adapter.validate().is_ok()));
    }
}
