//! PNG files with text in them.

use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;

/// Writes `picture` with text chunks (keyword, UTF-8 text), such as the parameters it was generated with.
///
/// # Errors
/// When the file cannot be written; then whatever was there before is unchanged.
pub fn save_png(path: &Path, picture: &RgbImage, texts: &[(&str, &str)]) -> Result<()> {
    atomic::replace_file(path, |file, _| {
        let mut encoder = png::Encoder::new(std::io::BufWriter::new(file), picture.width(), picture.height());
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        for (keyword, text) in texts {
            // Plain Latin text goes where every viewer looks for it; the rest needs the international chunk.
            if text.is_ascii() {
                encoder.add_text_chunk((*keyword).to_owned(), (*text).to_owned())?;
            } else {
                encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned())?;
            }
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(picture.as_raw())?;
        Ok(writer.finish()?)
    })
}

/// The text chunks of a PNG file: the plain ones, then the international ones.
///
/// # Errors
/// When the file cannot be read as a PNG.
pub fn png_texts(path: &Path) -> Result<Vec<(String, String)>> {
    let read = || -> Result<_> {
        let reader = png::Decoder::new(BufReader::new(limits::open(path)?)).read_info()?;
        let info = reader.info();
        let mut texts: Vec<(String, String)> =
            info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone())).collect();
        for chunk in &info.utf8_text {
            texts.push((chunk.keyword.clone(), chunk.get_text()?));
        }
        Ok(texts)
    };
    read().with_context(|| format!("cannot read {} as a PNG", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_and_texts_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let picture = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 50, y as u8 * 80, 7]));
        let texts = [("parameters", "a cat\nSteps: 50"), ("Title", "ein Kätzchen 🐱")];
        save_png(&path, &picture, &texts).unwrap();
        assert_eq!(image::open(&path).unwrap().into_rgb8(), picture);
        assert_eq!(png_texts(&path).unwrap(), texts.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn another_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, "not a picture").unwrap();
        assert!(png_texts(&path).unwrap_err().to_string().contains("a.png as a PNG"));
    }
}
