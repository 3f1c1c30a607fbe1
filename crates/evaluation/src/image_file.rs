//! One image file, prepared for an image encoder.

use std::path::PathBuf;

use anyhow::{Result, anyhow, ensure};
use clip::ImageProcessor;
use images::Filter;
use photos::{Options, Photo};
use tch::Tensor;

/// An image to take features of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// The file.
    pub path: PathBuf,
    /// Where its subject is; everything else is painted over.
    pub mask: Option<Mask>,
    /// The side in pixels of a square that it is squashed into first, if any.
    pub squash: Option<u32>,
}

/// Where an image's subject is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// An image of the same size, at least half bright where the subject is.
    pub path: PathBuf,
    /// The colour to paint everything else with.
    pub background: [u8; 3],
}

impl ImageFile {
    /// An image without a mask.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mask: None, squash: None }
    }

    /// Decodes, masks and prepares it: f32 [3, height, width].
    ///
    /// # Errors
    /// Names the file that cannot be read or does not fit.
    pub(crate) fn prepare(&self, processor: &ImageProcessor) -> Result<Tensor> {
        let mut pixels = open(&self.path)?;
        if let Some(Mask { path, background }) = &self.mask {
            let mask = open(path)?;
            ensure!(
                mask.dimensions() == pixels.dimensions(),
                "the mask {} has {} x {} pixels, but {} has {} x {}; make masks of the same size",
                path.display(),
                mask.width(),
                mask.height(),
                self.path.display(),
                pixels.width(),
                pixels.height()
            );
            for (pixel, mask) in pixels.pixels_mut().zip(mask.pixels()) {
                if mask.0.iter().all(|&channel| channel < 128) {
                    pixel.0 = *background;
                }
            }
        }
        if let Some(side) = self.squash {
            pixels = images::resize(&pixels, side, side, Filter::Bicubic);
        }
        processor.process_rgb8(pixels.as_raw(), pixels.height().into(), pixels.width().into())
    }
}

fn open(path: &PathBuf) -> Result<images::RgbImage> {
    match Photo::open(path, &Options::default()) {
        Ok(photo) => Ok(photo.pixels),
        Err(rejected) => Err(anyhow!("the image {} {}", path.display(), rejected.reason)),
    }
}
