//! What the tests share.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use photos::{Photo, PhotoFolder};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The folder fixtures/photos.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/photos")
}

/// Texture with hard edges, as `photo` in fixtures/photos/generate.py.
pub(crate) fn photo(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (u64::from(x), u64::from(y));
        let texture = (x * x * 7 + y * y * 11 + x * y * 13 + x * 29 + y * 31) / 4;
        Rgb([0, 101, 202].map(|channel| (texture + channel) as u8))
    })
}

pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// What a file of this name and contents is as the only one of its folder.
pub(crate) fn single(name: &str, bytes: &[u8]) -> Result<Photo, photos::Error> {
    Ok(PhotoFolder::open(folder(&[(name, bytes)]).path())?.photos.remove(0))
}

/// An image as a file of this format.
pub(crate) fn encoded(image: &RgbImage, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}
