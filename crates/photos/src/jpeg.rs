//! JPEG, read strictly: lenient decoders fill what is missing with grey and say nothing.

use image::RgbImage;
use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::decode::damaged;

/// Width and height as stored, before the orientation.
///
/// # Errors
/// Here and below: what follows the file's name in a sentence.
pub(crate) fn size(bytes: &[u8]) -> Result<(u32, u32), String> {
    let mut decoder = decoder(bytes);
    decoder.decode_headers().map_err(|error| damaged(&error))?;
    let info = decoder.info().ok_or("is damaged: it has no frame header")?;
    Ok((u32::from(info.width), u32::from(info.height)))
}

/// Pixels as stored, and how to turn them. Grey and CMYK (inverted, as everybody writes it) become RGB.
pub(crate) fn decode(bytes: &[u8]) -> Result<(RgbImage, Orientation), String> {
    let (width, height) = size(bytes)?;
    let guarded = guarded(bytes).ok_or("is cut off before its end")?;
    let mut decoder = decoder(&guarded);
    let pixels = decoder.decode().map_err(|error| damaged(&error))?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let picture = RgbImage::from_raw(width, height, pixels).ok_or("is damaged: pixels are missing")?;
    Ok((picture, orientation.unwrap_or(Orientation::NoTransforms)))
}

fn decoder(bytes: &[u8]) -> JpegDecoder<ZCursor<&[u8]>> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    JpegDecoder::new_with_options(ZCursor::new(bytes), options)
}

/// The image up to its end, with a run of ones before the end marker; none when the markers lead to no end.
///
/// No Huffman code is all ones (ITU T.81, C), so decoding fails when a header promises more pixels than there are,
/// where zeros would pass for pixels. What follows the end (other pictures, a phone's data) is left out.
fn guarded(bytes: &[u8]) -> Option<Vec<u8>> {
    const END: u8 = 0xD9;
    // 128 ones are more than any code and its value take; the zero after each byte says that it is data.
    let ones = [0xFF, 0].repeat(16);
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF))?;
        match bytes[at + 1] {
            END => return Some([&bytes[..at], &ones, &[0xFF, END]].concat()),
            // The start, restarts and other markers without contents.
            0x01 | 0xD0..=0xD8 => at += 2,
            // Segments are skipped by their length, so that the end of a thumbnail in one is not taken for the end.
            _ => at += 2 + usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?])),
        }
    }
}
