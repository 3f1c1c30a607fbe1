//! Heat maps as colours.

use anyhow::{Result, ensure};
use images::RgbImage;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::jet::color;

/// The colour scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The map's own least and greatest value, as DAAM shows maps: where a word acts, not how much.
    #[default]
    MinMax,
    /// These values; so maps can be compared. DAAM's `absolute` is 0 to 1.
    Range {
        /// Shown as 0; so is all below.
        from: f64,
        /// Shown as 1; so is all above.
        to: f64,
    },
}

/// One map [h, w] at the given height and width (bicubic), as values from 0 to 1: [height, width], f64 on the CPU.
///
/// # Errors
/// When `heat` is not such a map, or LibTorch fails.
pub fn display(heat: &Tensor, (height, width): (i64, i64), scale: Scale) -> Result<Tensor> {
    ensure!(
        heat.dim() == 2 && heat.numel() > 0,
        "a heat map to display has shape {:?} instead of [height, width]",
        heat.size()
    );
    if let Scale::Range { from, to } = scale {
        ensure!(from < to, "a heat map cannot be shown from {from} to {to}; the second value must be the greater");
    }
    Ok(libtorch::catch(|| {
        let heat = heat.detach().to_device(Device::Cpu).to_kind(Kind::Double).unsqueeze(0).unsqueeze(0);
        let heat = heat.upsample_bicubic2d([height, width], false, None, None).reshape([height, width]);
        match scale {
            Scale::MinMax => (&heat - heat.min()) / (heat.max() - heat.min() + 1e-8),
            Scale::Range { from, to } => ((heat - from) / (to - from)).clamp(0.0, 1.0),
        }
    })?)
}

/// The image over the colours ([`jet`](crate::jet)) of one map [h, w], through which they show as much as they are
/// hot: heat · colour + (1 - heat) · image.
///
/// # Errors
/// As [`display`].
pub fn overlay(image: &RgbImage, heat: &Tensor, scale: Scale) -> Result<RgbImage> {
    let (width, height) = image.dimensions();
    let heat = display(heat, (height.into(), width.into()), scale)?;
    let heat = Vec::<f64>::try_from(heat.flatten(0, -1))?;
    let mut over = image.clone();
    for (pixel, heat) in over.pixels_mut().zip(heat) {
        for (channel, color) in pixel.0.iter_mut().zip(color(heat)) {
            *channel = (heat * 255.0 * color + (1.0 - heat) * f64::from(*channel)).round() as u8;
        }
    }
    Ok(over)
}
