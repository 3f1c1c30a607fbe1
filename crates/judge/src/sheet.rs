//! Many pictures in one JPEG file.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use pretrainer::IMAGE_SIZE;
use scenes::RgbImage;

/// Pictures in a row.
const ROW: usize = 10;
/// JPEG's.
const QUALITY: u8 = 95;

/// Writes a sheet.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_sheet(path: &Path, images: &[RgbImage]) -> Result<()> {
    let rows = images.len().div_ceil(ROW);
    let mut sheet = RgbImage::new(ROW as u32 * IMAGE_SIZE, rows as u32 * IMAGE_SIZE);
    for (i, image) in images.iter().enumerate() {
        let (x, y) = ((i % ROW) as u32 * IMAGE_SIZE, (i / ROW) as u32 * IMAGE_SIZE);
        image::imageops::replace(&mut sheet, image, x.into(), y.into());
    }
    let mut bytes = Cursor::new(Vec::new());
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(&sheet)?;
    atomic::write(path, bytes.into_inner())
}

/// The first images of a sheet.
///
/// # Errors
/// When it cannot be read, or has another size.
pub(crate) fn read_sheet(path: &Path, count: usize) -> Result<Vec<RgbImage>> {
    let read = image::open(path).with_context(|| format!("cannot read {}", path.display()))?.into_rgb8();
    let size = (ROW as u32 * IMAGE_SIZE, count.div_ceil(ROW) as u32 * IMAGE_SIZE);
    ensure!(
        read.dimensions() == size,
        "{} is {} x {}, but a sheet of {count} images is {} x {}",
        path.display(),
        read.width(),
        read.height(),
        size.0,
        size.1
    );
    let at = |i: usize| ((i % ROW) as u32 * IMAGE_SIZE, (i / ROW) as u32 * IMAGE_SIZE);
    let cut = |(x, y)| image::imageops::crop_imm(&read, x, y, IMAGE_SIZE, IMAGE_SIZE).to_image();
    Ok((0..count).map(at).map(cut).collect())
}
