//! Embedded colour profiles (ICC.1) and their conversion to sRGB.

use image::DynamicImage;
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

/// What was done about an embedded profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Profile {
    /// There is none, or it is sRGB's: the pixels are as stored.
    Srgb,
    /// The pixels were converted.
    Converted,
    /// It cannot be used, and the pixels are as stored. Holds what follows the profile in a sentence.
    Ignored(String),
}

/// Pixels that are converted at a time.
const CHUNK: usize = 1 << 14;
/// A profile that changes no channel of any colour by more than this is sRGB with rounded numbers.
const ROUNDING: u8 = 1;

/// Converts a decoded image from the profile that was embedded in it to sRGB, 8 bits a channel; transparency stays.
pub(crate) fn to_srgb(image: DynamicImage, embedded: Option<&[u8]>) -> (DynamicImage, Profile) {
    let Some(embedded) = embedded else { return (image, Profile::Srgb) };
    let mut converted = match image.color().has_alpha() {
        true => DynamicImage::ImageRgba8(image.to_rgba8()),
        false => DynamicImage::ImageRgb8(image.to_rgb8()),
    };
    match convert(&mut converted, embedded) {
        Ok(true) => (converted, Profile::Converted),
        Ok(false) => (image, Profile::Srgb),
        Err(reason) => (image, Profile::Ignored(reason)),
    }
}

/// Returns whether anything had to be changed.
fn convert(image: &mut DynamicImage, embedded: &[u8]) -> Result<bool, String> {
    let profile = ColorProfile::new_from_slice(embedded).map_err(|error| format!("is damaged ({error})"))?;
    let channels = usize::from(image.color().channel_count());
    let pixels = match image {
        DynamicImage::ImageRgb8(image) => image.as_flat_samples_mut().samples,
        DynamicImage::ImageRgba8(image) => image.as_flat_samples_mut().samples,
        _ => unreachable!("the caller has made it 8 bits of RGB or RGBA"),
    };
    let grey = match profile.color_space {
        DataColorSpace::Rgb => false,
        DataColorSpace::Gray if pixels.chunks_exact(channels).all(|p| p[0] == p[1] && p[1] == p[2]) => true,
        DataColorSpace::Gray => return Err("is for grey images".to_owned()),
        other => return Err(format!("is for {}", format!("{other:?}").to_uppercase())),
    };
    let options = TransformOptions { allow_use_cicp_transfer: false, ..TransformOptions::default() };
    let (layout, of_pixel) = if grey { (Layout::Gray, 1) } else { (Layout::Rgb, 3) };
    let transform = profile
        .create_transform_8bit(layout, &ColorProfile::new_srgb(), Layout::Rgb, options)
        .map_err(|error| format!("is of a form that is not read ({error})"))?;
    let apply = |from: &[u8], to: &mut [u8]| transform.transform(from, to).map_err(|error| error.to_string());

    let grid: Vec<u8> = if grey { (0..=255).collect() } else { grid() };
    let mut seen = vec![0; grid.len() / of_pixel * 3];
    apply(&grid, &mut seen)?;
    let unchanged = |(from, to): (&[u8], &[u8])| (0..3).all(|c| to[c].abs_diff(from[c % of_pixel]) <= ROUNDING);
    if grid.chunks_exact(of_pixel).zip(seen.chunks_exact(3)).all(unchanged) {
        return Ok(false);
    }
    let mut from = Vec::with_capacity(CHUNK * of_pixel);
    let mut to = Vec::new();
    for chunk in pixels.chunks_mut(CHUNK * channels) {
        from.clear();
        chunk.chunks_exact(channels).for_each(|pixel| from.extend_from_slice(&pixel[..of_pixel]));
        to.resize(from.len() / of_pixel * 3, 0);
        apply(&from, &mut to)?;
        chunk.chunks_exact_mut(channels).zip(to.chunks_exact(3)).for_each(|(pixel, to)| pixel[..3].copy_from_slice(to));
    }
    Ok(true)
}

/// Colours from all over RGB.
fn grid() -> Vec<u8> {
    let levels = || (0..=255u8).step_by(17);
    levels().flat_map(|r| levels().flat_map(move |g| levels().flat_map(move |b| [r, g, b]))).collect()
}
