//! Poses from animated drawings.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, RgbaImage};

/// `count` frames of an animation (WebP), evenly spread; the first one is `offset` (0 to 1) of their distance after its start.
///
/// # Errors
/// When the file cannot be read, or has no frames.
pub fn poses(path: &Path, count: usize, offset: f64) -> Result<Vec<RgbaImage>> {
    let read = || {
        let frames = WebPDecoder::new(BufReader::new(File::open(path)?))?.into_frames().collect_frames()?;
        ensure!(!frames.is_empty(), "it has no frames");
        let chosen = (0..count).map(|i| ((i as f64 + offset) * frames.len() as f64 / count as f64) as usize);
        Ok(chosen.map(|frame| largest_part(frames[frame.min(frames.len() - 1)].buffer())).collect())
    };
    read().with_context(|| format!("cannot read the animation {}", path.display()))
}

/// The frame without the crumbs of earlier frames that the decoder leaves: what hangs together with the middle.
fn largest_part(frame: &RgbaImage) -> RgbaImage {
    let (width, height) = frame.dimensions();
    let mut kept = RgbaImage::new(width, height);
    let mut open = vec![(width / 2, height / 2)];
    while let Some((x, y)) = open.pop() {
        if frame.get_pixel(x, y).0[3] < 8 || kept.get_pixel(x, y).0[3] > 0 {
            continue;
        }
        kept.put_pixel(x, y, *frame.get_pixel(x, y));
        let around = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
        open.extend(around.into_iter().filter(|&(x, y)| x < width && y < height));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_are_left_out() {
        let solid = image::Rgba([200, 10, 10, 255]);
        let frame = RgbaImage::from_fn(16, 16, |x, y| {
            if (4..12).contains(&x) && (4..12).contains(&y) || (x, y) == (0, 0) { solid } else { image::Rgba([0; 4]) }
        });
        let kept = largest_part(&frame);
        assert_eq!(kept.get_pixel(0, 0).0[3], 0);
        assert_eq!(kept.pixels().filter(|pixel| pixel.0[3] > 0).count(), 64);
    }

    #[test]
    fn what_is_no_animation_is_an_error_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no webp").unwrap();
        let error = format!("{:#}", poses(file.path(), 5, 0.0).unwrap_err());
        assert!(error.contains("cannot read the animation"), "{error}");
    }
}
