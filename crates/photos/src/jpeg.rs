//! Strict JPEG decoding: lenient decoders silently fill missing pixels with grey.

use image::RgbImage;
use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::error::damaged;

/// Width and height as stored, before the orientation.
///
/// # Errors
/// Here and below: what follows the file's name in a sentence.
pub(crate) fn size(bytes: &[u8]) -> Result<(u32, u32), String> {
    size_in_header(&without_strays(bytes))
}

fn size_in_header(bytes: &[u8]) -> Result<(u32, u32), String> {
    let mut decoder = decoder(bytes);
    decoder.decode_headers().map_err(|error| damaged(&error))?;
    let info = decoder.info().ok_or("is damaged: it has no frame header")?;
    Ok((u32::from(info.width), u32::from(info.height)))
}

/// Pixels as stored, how to turn them, and the embedded colour profile. Grey and CMYK (inverted, as everybody writes it)
/// become RGB.
pub(crate) fn decode(bytes: &[u8]) -> Result<(RgbImage, Orientation, Option<Vec<u8>>), String> {
    let bytes = without_strays(bytes);
    let (width, height) = size_in_header(&bytes)?;
    let guarded = guarded(&bytes).ok_or("is cut off before its end")?;
    let mut decoder = decoder(&guarded);
    let pixels = decoder.decode().map_err(|error| damaged(&error))?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let image = RgbImage::from_raw(width, height, pixels).ok_or("is damaged: pixels are missing")?;
    Ok((image, orientation.unwrap_or(Orientation::NoTransforms), decoder.icc_profile()))
}

fn decoder(bytes: &[u8]) -> JpegDecoder<ZCursor<&[u8]>> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    JpegDecoder::new_with_options(ZCursor::new(bytes), options)
}

const START_OF_SCAN: u8 = 0xDA;
const END: u8 = 0xD9;

/// Where the next marker is.
fn next_marker(bytes: &[u8], from: usize) -> Option<usize> {
    let is_marker = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF);
    Some(from + bytes.get(from..)?.windows(2).position(is_marker)?)
}

/// Where what belongs to the marker at `at` ends; the start, restarts and some others have no contents.
fn end_of_segment(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes[at + 1] {
        0x01 | 0xD0..=0xD8 => Some(at + 2),
        _ => Some(at + 2 + usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]))),
    }
}

/// The file without bytes that lie between the segments of its header: some cameras write them and every other decoder
/// passes them over.
fn without_strays(bytes: &[u8]) -> Vec<u8> {
    let (mut kept, mut from) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(at) = next_marker(bytes, from) {
        let end = match end_of_segment(bytes, at) {
            Some(end) if end <= bytes.len() && !matches!(bytes[at + 1], START_OF_SCAN | END) => end,
            _ => bytes.len(),
        };
        kept.extend_from_slice(&bytes[at..end]);
        from = end;
    }
    kept
}

/// The image up to its end, with a run of ones before the end marker; none when the markers lead to no end.
///
/// No Huffman code is all ones (ITU T.81, C), so decoding fails when a header promises more pixels than there are,
/// where zeros would pass for pixels. What follows the end (other images, a phone's data) is left out.
fn guarded(bytes: &[u8]) -> Option<Vec<u8>> {
    // 128 ones are more than any code and its value take; the zero after each byte says that it is data.
    let ones = [0xFF, 0].repeat(16);
    let mut from = 0;
    loop {
        let at = next_marker(bytes, from)?;
        if bytes[at + 1] == END {
            return Some([&bytes[..at], &ones, &[0xFF, END]].concat());
        }
        // Segments are skipped by their length, so that the end of a thumbnail in one is not taken for the end.
        from = end_of_segment(bytes, at)?;
    }
}
