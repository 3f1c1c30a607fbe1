//! Where in a photo its subject is.

use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use images::{Filter, resize};
use sha2::{Digest, Sha256};

use crate::crop::Crop;
use crate::decode;

/// How much each pixel of a photo is of its subject.
#[derive(Debug, Clone)]
pub struct Mask {
    /// Its file; the photo's own where it is an alpha channel.
    pub path: PathBuf,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
    /// White (255) is subject, black is not, grey is between; of the photo's size.
    pub pixels: GrayImage,
}

impl Mask {
    /// Decodes a file for a photo of `size` pixels: the grey of its colours, black where it is transparent.
    ///
    /// # Errors
    /// What follows the file's name in a sentence.
    pub(crate) fn decode(
        path: &Path,
        bytes: &[u8],
        format: ImageFormat,
        photo: &str,
        size: (u32, u32),
    ) -> Result<Self, String> {
        let decoded = decode::decode(bytes, format, Some([0; 3]))?;
        let ((width, height), (photo_width, photo_height)) = (decoded.pixels.dimensions(), size);
        if (width, height) != size {
            return Err(format!(
                "has {width} x {height} pixels, but its photo {photo} has {photo_width} x {photo_height} when it is upright: \
                 save the mask in the photo's size"
            ));
        }
        Ok(Self::new(path, bytes, DynamicImage::ImageRgb8(decoded.pixels).into_luma8()))
    }

    pub(crate) fn new(path: &Path, bytes: &[u8], pixels: GrayImage) -> Self {
        Self { path: path.to_owned(), sha256: hex::encode(Sha256::digest(bytes)), pixels }
    }

    /// The same for a photo that is shrunk to this size.
    pub(crate) fn shrunk(self, width: u32, height: u32) -> Self {
        let pixels = resize(&colours(self.pixels), width, height, Filter::Bilinear);
        Self { pixels: DynamicImage::ImageRgb8(pixels).into_luma8(), ..self }
    }

    /// The mask of a crop of the photo, turned, resized, mirrored and cut just as that; what comes from outside of the photo is
    /// black.
    pub fn render(&self, crop: &Crop) -> GrayImage {
        DynamicImage::ImageRgb8(crop.render(&colours(self.pixels.clone()))).into_luma8()
    }

    /// The mask of a crop in cells of `cell` x `cell` pixels, row by row: the mean of each, from 0 to 1.
    pub fn cells(&self, crop: &Crop, cell: u32) -> Vec<f32> {
        let mask = self.render(crop);
        let cell = cell.max(1);
        let (columns, rows) = (mask.width() / cell, mask.height() / cell);
        let mean = |column: u32, row: u32| {
            let pixels = (0..cell * cell).map(|i| (column * cell + i % cell, row * cell + i / cell));
            let sum: u32 = pixels.map(|(x, y)| u32::from(mask.get_pixel(x, y).0[0])).sum();
            (f64::from(sum) / f64::from(cell * cell * 255)) as f32
        };
        (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row))).map(|(x, y)| mean(x, y)).collect()
    }
}

/// Crops are made of photos; a grey one keeps its values.
fn colours(mask: GrayImage) -> RgbImage {
    DynamicImage::ImageLuma8(mask).into_rgb8()
}
