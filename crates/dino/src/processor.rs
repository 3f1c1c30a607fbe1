//! How images are prepared.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clip::{ImageProcessor, Size};
use serde::Deserialize;

/// The numbers that stand for resampling filters.
const FILTERS: [i64; 2] = [ImageProcessor::BILINEAR, ImageProcessor::BICUBIC];
const MAX_SIDE: i64 = 4096;

/// preprocessor_config.json of transformers' `ViTImageProcessor`; absent keys have its defaults.
#[derive(Deserialize, Clone, Copy)]
#[serde(default)]
struct Rules {
    do_resize: bool,
    size: Square,
    resample: i64,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: [f64; 3],
    image_std: [f64; 3],
}

/// A single number is the side of a square, into which images are squashed.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Square {
    Side(i64),
    Sides { height: i64, width: i64 },
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            do_resize: true,
            size: Square::Side(224),
            resample: ImageProcessor::BILINEAR,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
        }
    }
}

/// Reads preprocessor_config.json in `folder`: images are squashed into squares, which are not cropped.
///
/// # Errors
/// When the file cannot be read or asks for something else.
pub fn image_processor(folder: &Path) -> Result<ImageProcessor> {
    let path = folder.join("preprocessor_config.json");
    let rules: Rules = json::read(&path, "the configuration of an image processor")?;
    checked(rules).with_context(|| format!("{} cannot be followed", path.display()))
}

fn checked(rules: Rules) -> Result<ImageProcessor> {
    let Rules { do_resize, size, resample, do_rescale, rescale_factor, do_normalize, image_mean, image_std } = rules;
    let (height, width) = match size {
        Square::Side(side) => (side, side),
        Square::Sides { height, width } => (height, width),
    };
    for side in [height, width] {
        limits::within("size", side, 1..=MAX_SIDE, "the encoder reads every pixel")?;
    }
    ensure!(FILTERS.contains(&resample), "resample is {resample}, but only 2, bilinear, and 3, bicubic, are supported");
    ensure!(rescale_factor > 0.0, "rescale_factor is {rescale_factor}, but must be positive");
    ensure!(image_std.iter().all(|&std| std > 0.0), "image_std is {image_std:?}, but must be positive");
    let size = Size::Exact { height, width };
    Ok(ImageProcessor {
        do_resize,
        size,
        resample,
        do_center_crop: false,
        do_rescale,
        rescale_factor,
        do_normalize,
        image_mean,
        image_std,
        ..ImageProcessor::default()
    })
}
