//! One file's bytes to upright RGB pixels.

use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::Path;

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{
    AnimationDecoder, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, Luma, RgbImage,
};

use crate::error::damaged;
use crate::icc::{self, Profile};
use crate::jpeg;

/// Larger photos are refused before they are decoded. This many pixels take 400 MB; a phone's 108 megapixels pass.
pub const MAX_PIXELS: u64 = 1 << 27;

/// Width and height as stored, from the header alone.
///
/// # Errors
/// Here and below: what follows the file's name in a sentence.
pub(crate) fn size(bytes: &[u8], format: ImageFormat) -> Result<(u32, u32), String> {
    let (width, height) = match format {
        ImageFormat::Jpeg => jpeg::size(bytes)?,
        _ => decoder(bytes, format)?.dimensions(),
    };
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err("is damaged: it has no pixels".to_owned());
    }
    if pixels > MAX_PIXELS {
        let [is, most] = [pixels, MAX_PIXELS].map(|pixels| pixels.div_ceil(1_000_000));
        return Err(format!(
            "has {width} x {height} pixels ({is} megapixels), more than the {most} megapixels that are read: \
             save it smaller"
        ));
    }
    Ok((width, height))
}

/// What a file holds.
pub(crate) struct Decoded {
    /// The first frame, upright, 8 bits of sRGB.
    pub(crate) pixels: RgbImage,
    /// How opaque each pixel is, where that is not the same everywhere.
    pub(crate) alpha: Option<GrayImage>,
    /// What its colour profile has led to.
    pub(crate) profile: Profile,
}

/// Decodes an image whose [`size`] is acceptable, transparency over `background` (or dropped without one).
pub(crate) fn decode(bytes: &[u8], format: ImageFormat, background: Option<[u8; 3]>) -> Result<Decoded, String> {
    size(bytes, format)?;
    let (image, orientation, embedded) = match format {
        ImageFormat::Jpeg => {
            let (image, orientation, embedded) = jpeg::decode(bytes)?;
            (DynamicImage::ImageRgb8(image), orientation, embedded)
        }
        _ => {
            let mut decoder = decoder(bytes, format)?;
            // Metadata that cannot be understood are no reason to refuse a photo.
            let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
            let embedded = match format {
                // `image` gives TIFF's tags the room of the pixels, too little for the profile of a small image.
                ImageFormat::Tiff => TiffDecoder::new(Cursor::new(bytes)).and_then(|mut tiff| tiff.icc_profile()),
                _ => decoder.icc_profile(),
            };
            let embedded = embedded.unwrap_or_default();
            let image = DynamicImage::from_decoder(decoder).map_err(unusable)?;
            (image, orientation, embedded)
        }
    };
    let (image, profile) = icc::to_srgb(image, embedded.as_deref());
    let upright = |mut image: DynamicImage| {
        image.apply_orientation(orientation);
        image
    };
    let alpha = alpha(&image).map(|alpha| upright(DynamicImage::ImageLuma8(alpha)).into_luma8());
    let pixels = upright(DynamicImage::ImageRgb8(flatten(image, background)?)).into_rgb8();
    Ok(Decoded { pixels, alpha, profile })
}

/// Whether a file has several frames, of which [`decode`] gives the first. What cannot be told counts as none.
pub(crate) fn is_animated(path: &Path) -> bool {
    let open = || File::open(path).map(BufReader::new).ok();
    let format = open().and_then(|file| ImageReader::new(file).with_guessed_format().ok()?.format());
    match (format, open()) {
        (Some(ImageFormat::Gif), Some(file)) => {
            GifDecoder::new(file).is_ok_and(|gif| gif.into_frames().take(2).filter_map(Result::ok).count() > 1)
        }
        (Some(ImageFormat::WebP), Some(file)) => WebPDecoder::new(file).is_ok_and(|webp| webp.has_animation()),
        (Some(ImageFormat::Png), Some(file)) => {
            PngDecoder::new(file).is_ok_and(|png| png.is_apng().unwrap_or_default())
        }
        _ => false,
    }
}

/// The alpha channel of an image that is not opaque.
fn alpha(image: &DynamicImage) -> Option<GrayImage> {
    if !image.color().has_alpha() {
        return None;
    }
    let image = image.to_rgba8();
    let alpha = |x, y| Luma([image.get_pixel(x, y).0[3]]);
    let transparent = image.pixels().any(|pixel| pixel.0[3] != u8::MAX);
    transparent.then(|| GrayImage::from_fn(image.width(), image.height(), alpha))
}

fn decoder(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    // Four channels of 16 bits, and as much again for the decoder's own work.
    limits.max_alloc = Some(MAX_PIXELS * 16);
    reader.limits(limits);
    reader.into_decoder().map_err(unusable)
}

fn unusable(error: image::ImageError) -> String {
    match error {
        image::ImageError::Unsupported(error) => format!("cannot be read ({error}): save it as JPEG or PNG"),
        error => damaged(&error),
    }
}

fn flatten(image: DynamicImage, background: Option<[u8; 3]>) -> Result<RgbImage, String> {
    let Some(background) = background.filter(|_| image.color().has_alpha()) else {
        return Ok(image.into_rgb8());
    };
    let image = image.into_rgba8();
    if image.pixels().all(|pixel| pixel.0[3] == 0) {
        return Err("is wholly transparent, so that nothing is visible: save it without transparency".to_owned());
    }
    let mut flat = RgbImage::new(image.width(), image.height());
    for (to, from) in flat.pixels_mut().zip(image.pixels()) {
        let [red, green, blue, alpha] = from.0.map(u32::from);
        for ((to, from), behind) in to.0.iter_mut().zip([red, green, blue]).zip(background) {
            *to = ((from * alpha + u32::from(behind) * (255 - alpha) + 127) / 255) as u8;
        }
    }
    Ok(flat)
}
