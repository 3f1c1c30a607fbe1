//! Which layers count in a heat map.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use unet::CrossAttentionLayer;

/// Which layers count in a heat map; absent keys have DAAM's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The layers that count, by how many times smaller than the latents their feature maps are. DAAM leaves out 8.
    pub factors: Vec<i64>,
    /// Whether the layers of the U-Net's middle block count too; not in DAAM.
    pub mid: bool,
    /// Whether each pixel's values are divided by their sum over the tokens between the start and the end of the text;
    /// not by DAAM unless asked.
    pub normalize: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { factors: vec![1, 2, 4], mid: false, normalize: false }
    }
}

impl Config {
    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// Names the key and its value.
    pub fn validate(&self) -> Result<()> {
        ensure!(!self.factors.is_empty(), "factors is empty, but heat maps need layers of at least one size");
        if let Some(factor) = self.factors.iter().find(|factor| **factor < 1) {
            anyhow::bail!("factors has {factor}, but a feature map is 1, 2, 4, ... times smaller than the latents");
        }
        Ok(())
    }

    /// Whether a layer counts.
    pub(crate) fn takes(&self, layer: &CrossAttentionLayer<'_>, latents: (i64, i64)) -> bool {
        self.factors.contains(&factor(layer, latents)) && (self.mid || !layer.name.starts_with("mid_block"))
    }
}

/// How many times smaller than the latents a layer's feature map is, √(H·W / h·w) to the nearest integer: odd sizes
/// are not halved exactly.
pub(crate) fn factor(layer: &CrossAttentionLayer<'_>, (height, width): (i64, i64)) -> i64 {
    let ratio = (height * width) as f64 / (layer.height * layer.width) as f64;
    ratio.sqrt().round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, height: i64, width: i64) -> CrossAttentionLayer<'_> {
        CrossAttentionLayer { name, index: 0, heads: 1, height, width }
    }

    #[test]
    fn daam_takes_three_sizes_and_not_the_middle() {
        let taken = |name, side| Config::default().takes(&layer(name, side, side), (64, 64));
        assert_eq!([64, 32, 16, 8].map(|side| taken("down_blocks.0", side)), [true, true, true, false]);
        assert!(!taken("mid_block.attentions.0", 16));
        let mid = Config { mid: true, ..Config::default() };
        assert!(mid.takes(&layer("mid_block.attentions.0", 16, 16), (64, 64)));
    }

    #[test]
    fn odd_sizes_have_the_nearest_factor() {
        assert_eq!([(5, 9), (3, 5), (2, 3)].map(|(h, w)| factor(&layer("", h, w), (5, 9))), [1, 2, 3]);
        assert_eq!(
            [(36, 52), (18, 26), (9, 13), (5, 7)].map(|(h, w)| factor(&layer("", h, w), (36, 52))),
            [1, 2, 4, 7]
        );
    }

    #[test]
    fn impossible_values_are_named() {
        let says = |factors: &[i64], words: &str| {
            let error = Config { factors: factors.to_vec(), ..Config::default() }.validate().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        says(&[], "factors is empty");
        says(&[1, 0], "factors has 0");
        assert!(Config::default().validate().is_ok());
    }
}
