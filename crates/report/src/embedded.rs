//! Image files as parts of a page.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use maud::{Markup, html};

/// Files of at most so many bytes stay as they are, if nothing else has to be changed.
const SMALL: usize = 40_000;
const JPEG_QUALITY: u8 = 88;
/// Larger images, a phone's 108 megapixels not among them, are refused before they are decoded.
const MAX_PIXELS: u64 = 1 << 27;
/// So many pixels of four channels of 16 bits; also what a file may have.
const MAX_BYTES: u64 = MAX_PIXELS * 8;

/// An image within the page.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    uri: String,
    width: u32,
    height: u32,
}

impl Image {
    /// An image file, upright, made smaller where it has more than `side` pixels across or down. Large files become
    /// JPEG where that is smaller.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or has too many pixels.
    pub(crate) fn open(path: &Path, side: u32) -> Result<Self> {
        let bytes = read(path)?;
        let (image, format, upright) = decode(&bytes, path)?;
        let fits = image.width().max(image.height()) <= side;
        let mime = match format {
            Some(ImageFormat::Png) => Some("image/png"),
            Some(ImageFormat::Jpeg) => Some("image/jpeg"),
            Some(ImageFormat::WebP) => Some("image/webp"),
            _ => None,
        };
        // What a browser can show as it is.
        let kept = mime.filter(|_| fits && upright).map(|mime| Self::new(mime, &bytes, &image));
        if let Some(kept) = kept.clone().filter(|_| bytes.len() <= SMALL) {
            return Ok(kept);
        }
        let image = if fits { image } else { image.resize(side, side, FilterType::Triangle) };
        let jpeg = Self::jpeg(&image).with_context(|| format!("cannot embed {}", path.display()))?;
        Ok(kept.filter(|kept| kept.uri.len() <= jpeg.uri.len()).unwrap_or(jpeg))
    }

    /// The same, but always written anew, so that nothing of the file but the pixels remains: neither its name and
    /// parameters nor its way of compression tell where it is from.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub(crate) fn anonymous(path: &Path, side: u32) -> Result<Self> {
        let (image, ..) = decode(&read(path)?, path)?;
        // Of one size, too, as far as it goes.
        Self::jpeg(&image.resize(side, side, FilterType::CatmullRom))
            .with_context(|| format!("cannot embed {}", path.display()))
    }

    fn jpeg(image: &DynamicImage) -> Result<Self> {
        let mut bytes = Vec::new();
        image.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?;
        Ok(Self::new("image/jpeg", &bytes, image))
    }

    fn new(mime: &str, bytes: &[u8], image: &DynamicImage) -> Self {
        let uri = format!("data:{mime};base64,{}", BASE64_STANDARD.encode(bytes));
        Self { uri, width: image.width(), height: image.height() }
    }

    /// The element; `alt` says what is to be seen.
    pub(crate) fn img(&self, alt: &str) -> Markup {
        html! { img src=(self.uri) alt=(alt) width=(self.width) height=(self.height); }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let cannot = || format!("cannot read the image {}", path.display());
    let metadata = fs::metadata(path).with_context(cannot)?;
    ensure!(metadata.is_file(), "{} is no file, but stands where an image belongs; remove it", path.display());
    let bytes = metadata.len();
    ensure!(bytes <= MAX_BYTES, "the image {} has {} MB: save it smaller", path.display(), bytes / 1_000_000);
    fs::read(path).with_context(cannot)
}

/// The image as it is to be seen, its format, and whether its pixels were stored so.
fn decode(bytes: &[u8], path: &Path) -> Result<(DynamicImage, Option<ImageFormat>, bool)> {
    let damaged = || format!("the image {} is damaged or half-written; remove it or make it again", path.display());
    let open = || -> Result<_> {
        let mut limits = Limits::default();
        limits.max_alloc = Some(2 * MAX_BYTES);
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
        reader.limits(limits);
        let format = reader.format();
        Ok((reader.into_decoder()?, format))
    };
    let (mut decoder, format) = open().with_context(damaged)?;
    let (width, height) = decoder.dimensions();
    // Neither `into_decoder` nor `from_decoder` looks at how much there is to be decoded.
    ensure!(
        u64::from(width) * u64::from(height) <= MAX_PIXELS,
        "the image {} has {width} x {height} pixels, more than the {} megapixels that are read: save it smaller",
        path.display(),
        MAX_PIXELS / 1_000_000
    );
    let decode = || -> Result<_> {
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok((image, format, orientation == image::metadata::Orientation::NoTransforms))
    };
    decode().with_context(damaged)
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    /// As hard to compress as a photo.
    fn noise(width: u32, height: u32) -> RgbImage {
        let hash =
            |x: u32, y: u32| (x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
        let pixel = |x, y| [24, 16, 8].map(|shift| 96 + (hash(x, y) >> shift) as u8 / 4);
        RgbImage::from_fn(width, height, |x, y| pixel(x, y).into())
    }

    /// The bytes and the image within the page.
    fn embedded(image: &Image, mime: &str) -> (Vec<u8>, DynamicImage) {
        let bytes = BASE64_STANDARD.decode(image.uri.strip_prefix(&format!("data:{mime};base64,")).unwrap()).unwrap();
        let decoded = image::load_from_memory(&bytes).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (image.width, image.height));
        (bytes, decoded)
    }

    #[test]
    fn small_files_stay_as_they_are_and_large_ones_shrink() {
        let folder = tempfile::tempdir().unwrap();
        let (small, large) = (folder.path().join("s.png"), folder.path().join("l.png"));
        noise(40, 30).save(&small).unwrap();
        noise(400, 300).save(&large).unwrap();
        let (bytes, _) = embedded(&Image::open(&small, 64).unwrap(), "image/png");
        assert_eq!(bytes, fs::read(&small).unwrap());
        let (bytes, _) = embedded(&Image::open(&large, 1000).unwrap(), "image/jpeg");
        assert!(bytes.len() < fs::read(&large).unwrap().len() / 2);
        let (_, shrunk) = embedded(&Image::open(&large, 64).unwrap(), "image/jpeg");
        assert_eq!((shrunk.width(), shrunk.height()), (64, 48));
        // Black on white, of which JPEG makes more bytes.
        let drawing = folder.path().join("d.png");
        let mut dots = noise(800, 800);
        dots.pixels_mut().for_each(|pixel| *pixel = [if pixel.0[0] % 2 == 0 { 0 } else { 255 }; 3].into());
        dots.save(&drawing).unwrap();
        assert!(fs::metadata(&drawing).unwrap().len() > SMALL as u64);
        let (bytes, _) = embedded(&Image::open(&drawing, 2000).unwrap(), "image/png");
        assert_eq!(bytes, fs::read(&drawing).unwrap());
    }

    #[test]
    fn an_anonymous_image_has_nothing_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let mut encoder = png::Encoder::new(fs::File::create(&path).unwrap(), 8, 8);
        encoder.set_color(png::ColorType::Rgb);
        encoder.add_text_chunk("parameters".into(), "Model: run-a".into()).unwrap();
        encoder.write_header().unwrap().write_image_data(noise(8, 8).as_raw()).unwrap();
        let (bytes, image) = embedded(&Image::anonymous(&path, 32).unwrap(), "image/jpeg");
        assert!(!bytes.windows(5).any(|window| window == b"run-a"));
        assert_eq!((image.width(), image.height()), (32, 32));
    }

    #[test]
    fn an_image_that_would_take_gigabytes_is_refused_by_its_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bomb.png");
        let mut encoder = png::Encoder::new(fs::File::create(&path).unwrap(), 60_000, 60_000);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_depth(png::BitDepth::Sixteen);
        encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
        for error in [Image::open(&path, 64), Image::anonymous(&path, 64)].map(Result::unwrap_err) {
            let error = format!("{error:#}");
            assert!(
                error.contains("bomb.png has 60000 x 60000 pixels") && error.contains("save it smaller"),
                "{error}"
            );
        }
        let error = Image::open(folder.path(), 64).unwrap_err().to_string();
        assert!(error.contains("is no file"), "{error}");
    }

    #[test]
    fn a_damaged_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("half.png");
        noise(100, 100).save(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        for contents in [&bytes[..bytes.len() / 2], b"", b"not an image"] {
            fs::write(&path, contents).unwrap();
            for error in [Image::open(&path, 64), Image::anonymous(&path, 64)].map(Result::unwrap_err) {
                assert!(error.to_string().contains("half.png is damaged or half-written"), "{error:#}");
            }
        }
        assert!(Image::open(Path::new("/no/such.png"), 64).unwrap_err().to_string().contains("/no/such.png"));
    }
}
