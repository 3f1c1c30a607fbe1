//! Finished heat maps.

use std::ops::Range;

use anyhow::{Result, ensure};
use tch::Tensor;

/// How much each pixel attended to each token, summed over passes; see the [crate].
#[derive(Debug)]
pub struct HeatMaps {
    /// [images, positions, height, width] of the latents' height and width, f32 or f64: the mean over layers and
    /// heads of sums over passes.
    pub maps: Tensor,
    /// The passes of the U-Net that were summed; divided by them, a value is a mean probability.
    pub passes: u64,
}

impl HeatMaps {
    /// The map [images, height, width] of the word at these positions: the mean over its tokens.
    ///
    /// # Errors
    /// When the positions are not all in the prompt, or there are none.
    pub fn word(&self, positions: Range<usize>) -> Result<Tensor> {
        let known = self.maps.size()[1];
        ensure!(
            !positions.is_empty() && positions.end as i64 <= known,
            "a heat map is asked for at the positions {positions:?}, but the prompt has 0..{known}"
        );
        let tokens = self.maps.narrow(1, positions.start as i64, positions.len() as i64);
        Ok(tokens.mean_dim([1i64].as_slice(), false, self.maps.kind()))
    }
}
