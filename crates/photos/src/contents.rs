//! Recognising files by their first bytes; a name only tells what its user expects.

use std::path::Path;

use image::ImageFormat;

/// What to do with a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Decode it.
    Image(ImageFormat),
    /// Refuse it: it is meant as a photo, but cannot be read as one. Holds what follows its name in a sentence.
    Unusable(String),
    /// Skip it.
    Other,
}

/// The number of first bytes that are enough for [`Contents::of`].
pub(crate) const HEAD: usize = 32;

const READ: [ImageFormat; 6] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Tiff];

/// Names of photos. What a camera calls raw is TIFF by its first bytes, but only a thumbnail would be decoded.
const RAW: [&str; 14] =
    ["3fr", "arw", "cr2", "cr3", "dng", "erf", "nef", "nrw", "orf", "pef", "raf", "raw", "rw2", "srw"];
const PHOTO: [&str; 14] =
    ["avif", "bmp", "gif", "heic", "heif", "jfif", "jp2", "jpe", "jpeg", "jpg", "jxl", "png", "tif", "tiff"];

/// Whether its name says that a file is a photo.
pub(crate) fn is_called_photo(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    PHOTO.contains(&extension.as_str()) || extension == "webp"
}

impl Contents {
    /// Judges a file by its extension (any case) and first [`HEAD`] bytes (fewer if it is shorter).
    pub(crate) fn of(extension: &str, head: &[u8]) -> Self {
        let extension = extension.to_ascii_lowercase();
        let unread =
            |format: &str| Self::Unusable(format!("is {format}, which is not read here: save it as JPEG or PNG"));
        if RAW.contains(&extension.as_str()) {
            return unread("a camera's raw file");
        }
        if let Some(format) = unread_format(head) {
            return unread(format);
        }
        match image::guess_format(head) {
            Ok(ImageFormat::Bmp) if !is_bmp(head) => {}
            Ok(format) if READ.contains(&format) => return Self::Image(format),
            _ => {}
        }
        if !PHOTO.contains(&extension.as_str()) && extension != "webp" {
            Self::Other
        } else if head.is_empty() {
            Self::Unusable("is empty".to_owned())
        } else {
            Self::Unusable("is named like an image, but does not begin like one".to_owned())
        }
    }
}

/// Image formats that people have and that are not decoded.
fn unread_format(head: &[u8]) -> Option<&'static str> {
    let brand = if head.get(4..8) == Some(b"ftyp") { head.get(8..12) } else { None };
    match brand {
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1") => return Some("HEIC"),
        Some(b"avif" | b"avis") => return Some("AVIF"),
        _ => {}
    }
    match head {
        [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] => Some("JPEG 2000"),
        [b'8', b'B', b'P', b'S', ..] => Some("a Photoshop file"),
        _ => None,
    }
}

/// "BM" alone may begin any text, so the size of the header that follows must be one of those that exist.
fn is_bmp(head: &[u8]) -> bool {
    matches!(head.get(14..18), Some([12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(extension: &str, head: &[u8]) -> String {
        match Contents::of(extension, head) {
            Contents::Unusable(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn contents_win_over_names() {
        assert_eq!(Contents::of("txt", &[0xFF, 0xD8, 0xFF, 0xE0]), Contents::Image(ImageFormat::Jpeg));
        assert_eq!(Contents::of("jpg", b"RIFF\x10\0\0\0WEBPVP8 "), Contents::Image(ImageFormat::WebP));
        assert_eq!(Contents::of("", b"BM...something about cars"), Contents::Other);
        assert_eq!(Contents::of("md", b"P1 is a text"), Contents::Other);
        assert_eq!(Contents::of("mov", b"\0\0\0\x14ftypqt  "), Contents::Other);
    }

    #[test]
    fn false_photos_are_refused() {
        assert_eq!(refusal("JPG", b""), "is empty");
        assert!(refusal("png", b"<html>").contains("does not begin like one"));
        assert!(refusal("jpg", b"\0\0\0\x24ftypheic\0\0\0\0").starts_with("is HEIC, which is not read"));
        assert!(refusal("DNG", b"II*\0").contains("raw file"));
    }
}
