//! PNG files with text in them, and the mark of generated images.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use image::RgbImage;

/// The keyword that the XMP specification, part 3, gives the packet in a PNG file.
const KEYWORD: &str = "XML:com.adobe.xmp";

/// An XMP packet with IPTC's digital source type of images that a trained model has generated.
const PACKET: &str = concat!(
    "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n",
    r#"<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/">
   <Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>
   <xmp:CreatorTool>attndreambooth "#,
    env!("CARGO_PKG_VERSION"),
    r#"</xmp:CreatorTool>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"#
);

static MARKED: AtomicBool = AtomicBool::new(true);

/// Sets whether the process marks generated images as such; by default it does.
pub fn mark_generated(marked: bool) {
    MARKED.store(marked, Ordering::Relaxed);
}

/// Writes an image that no model has generated (a plot, a contact sheet) with text chunks (keyword, UTF-8 text).
///
/// # Errors
/// When the file cannot be written; then whatever was there before is unchanged.
pub fn save_png(path: &Path, image: &RgbImage, texts: &[(&str, &str)]) -> Result<()> {
    atomic::replace_file(path, |file, _| encode(file, image, texts))
}

/// Writes a generated image, or several in one, with text chunks such as the `parameters` it was generated with. The file
/// also says that it was generated, by an XMP packet with IPTC's digital source type `trainedAlgorithmicMedia`, unless
/// [`mark_generated`] has turned that off.
///
/// # Errors
/// As [`save_png`].
pub fn save_generated(path: &Path, image: &RgbImage, texts: &[(&str, &str)]) -> Result<()> {
    save_png(path, image, &with_mark(texts))
}

/// The same for a new file, even if another process writes there at the same time.
///
/// # Errors
/// As [`save_png`], and when `path` exists.
pub fn save_new_generated(path: &Path, image: &RgbImage, texts: &[(&str, &str)]) -> Result<()> {
    atomic::new_file(path, |file, _| encode(file, image, &with_mark(texts)))
}

fn with_mark<'a>(texts: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mark = MARKED.load(Ordering::Relaxed).then_some((KEYWORD, PACKET));
    texts.iter().copied().chain(mark).collect()
}

fn encode(file: &mut File, image: &RgbImage, texts: &[(&str, &str)]) -> Result<()> {
    let mut encoder = png::Encoder::new(BufWriter::new(file), image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        // Plain Latin text goes where every viewer looks for it; the rest, and XMP, needs the international chunk.
        if text.is_ascii() && *keyword != KEYWORD {
            encoder.add_text_chunk((*keyword).to_owned(), (*text).to_owned())?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.as_raw())?;
    Ok(writer.finish()?)
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
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 50, y as u8 * 80, 7]));
        let texts = [("parameters", "a cat\nSteps: 50"), ("Title", "ein Kätzchen 🐱")];
        save_png(&path, &image, &texts).unwrap();
        assert_eq!(image::open(&path).unwrap().into_rgb8(), image);
        assert_eq!(png_texts(&path).unwrap(), texts.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    /// By its bytes, as in the PNG and XMP specifications: the keyword, no compression, no language, no translated keyword.
    #[test]
    fn a_generated_image_says_so_before_its_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let image = RgbImage::new(5, 3);
        save_generated(&path, &image, &[("parameters", "a cat")]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let find = |part: &[u8]| bytes.windows(part.len()).position(|window| window == part);
        let start = find(b"iTXtXML:com.adobe.xmp\0\0\0\0\0<?xpacket begin=\"\xef\xbb\xbf\"").unwrap();
        let source =
            b"<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia<";
        let (source, end, pixels) =
            (find(source).unwrap(), find(b"<?xpacket end=\"r\"?>").unwrap(), find(b"IDAT").unwrap());
        assert!(start < source && source < end && end < pixels);
        let keywords =
            |path: &Path| png_texts(path).unwrap().into_iter().map(|(keyword, _)| keyword).collect::<Vec<_>>();
        assert_eq!(keywords(&path), ["parameters", "XML:com.adobe.xmp"]);
        assert_eq!(image::open(&path).unwrap().into_rgb8(), image);

        save_png(&path, &image, &[]).unwrap();
        assert!(keywords(&path).is_empty());
        let taken = save_new_generated(&path, &image, &[]).unwrap_err().to_string();
        assert!(taken.contains("exists already"), "{taken}");
        assert!(keywords(&path).is_empty());
    }

    #[test]
    fn another_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, "not an image").unwrap();
        assert!(png_texts(&path).unwrap_err().to_string().contains("a.png as a PNG"));
    }
}
