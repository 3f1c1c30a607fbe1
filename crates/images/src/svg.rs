//! SVG: text that is safe within it, and its pixels.

use std::fmt::{self, Display, Write};
use std::sync::{Arc, LazyLock};

use image::RgbImage;
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use unicode_width::UnicodeWidthStr;

/// It covers Latin, Greek, Cyrillic and more, and each of its characters is as wide as another, so that text can be laid
/// out without it.
const FONT: &[u8] = include_bytes!("../data/DejaVuSansMono.ttf");
const FAMILY: &str = "DejaVu Sans Mono";
/// The width of a character by the size of the font.
const ADVANCE: f64 = 1233.0 / 2048.0;
/// The colour that `currentColor` stands for.
const STYLE: &str = "svg { color: rgb(31, 35, 40) }";

/// Text as it may stand in an element or a quoted attribute of SVG or HTML: nothing breaks out, and nothing disguises what
/// it says. Control characters but line feeds and tabs, those that change the direction of writing, and those that XML
/// does not have are shown as escapes.
///
/// ```
/// assert_eq!(images::Escaped("a <b> & \"c\"").to_string(), "a &lt;b&gt; &amp; &quot;c&quot;");
/// assert_eq!(images::Escaped("dog\u{202e}gnp.\u{1b}").to_string(), r"dog\u{202e}gnp.\u{1b}");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in terminal::escaped_lines(self.0).chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\u{fffe}' | '\u{ffff}' => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The width of a line of text in a font of this size, in pixels.
pub(crate) fn text_width(text: &str, font_size: f64) -> f64 {
    text.width() as f64 * ADVANCE * font_size
}

/// The pixels of an `<svg>` element that this crate has written, on white. It is as large as its `viewBox`.
pub(crate) fn rasterise(svg: &str) -> RgbImage {
    let tree =
        Tree::from_str(svg, &options(svg.chars().all(is_embedded))).expect("texts are escaped and sizes are not zero");
    let size = tree.size().to_int_size();
    let mut pixels = Pixmap::new(size.width(), size.height()).expect("an image of this size fits in memory");
    pixels.fill(Color::WHITE);
    resvg::render(&tree, Transform::default(), &mut pixels.as_mut());
    RgbImage::from_fn(size.width(), size.height(), |x, y| {
        let pixel = pixels.pixels()[(y * size.width() + x) as usize];
        image::Rgb([pixel.red(), pixel.green(), pixel.blue()])
    })
}

/// Latin, Greek, Cyrillic and their punctuation.
fn is_embedded(c: char) -> bool {
    matches!(c, ..'\u{530}' | '\u{2010}'..='\u{203a}')
}

/// The system's fonts are read only where there may be characters that the embedded one lacks.
fn options(embedded: bool) -> Options<'static> {
    static EMBEDDED: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| Arc::new(fonts(false)));
    static ALL: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| Arc::new(fonts(true)));
    let fontdb = if embedded { &*EMBEDDED } else { &*ALL };
    Options { fontdb: Arc::clone(fontdb), style_sheet: Some(STYLE.to_owned()), ..Options::default() }
}

fn fonts(of_the_system: bool) -> fontdb::Database {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    if of_the_system {
        fonts.load_system_fonts();
    }
    fonts.set_monospace_family(FAMILY);
    fonts.set_sans_serif_family(FAMILY);
    fonts.set_serif_family(FAMILY);
    fonts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ink(text: &str) -> RgbImage {
        let text = Escaped(text);
        let svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 20" font-family="system-ui, sans-serif" font-size="15"><text x="2" y="15" fill="currentColor">{text}</text></svg>"#
        );
        rasterise(&svg)
    }

    #[test]
    fn letters_outside_ascii_are_drawn_as_what_they_are() {
        let letters = ["A", "é", "ß", "Ω", "Ж", "ł", "ğ", "?", "\u{fffd}"].map(ink);
        for (i, letter) in letters.iter().enumerate() {
            assert!(letter.pixels().any(|pixel| pixel.0[0] < 100), "{i}");
            assert!(letters[..i].iter().all(|other| other != letter), "{i}");
        }
    }

    #[test]
    fn any_text_can_be_drawn() {
        for text in ["", " ", "<&>", "\0\u{1b}\u{202e}", "\u{fffe}\u{ffff}", "\r\n\t", "狐 🦊 ثعلب", "e\u{301}\u{200d}"]
        {
            assert_eq!(ink(text).dimensions(), (60, 20), "{text:?}");
        }
    }

    #[test]
    fn widths_are_the_fonts() {
        let image = ink("MMMM");
        let right = image.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] < 128).map(|(x, ..)| x).max().unwrap();
        let expected = 2.0 + text_width("MMMM", 15.0);
        assert!((expected - f64::from(right)).abs() < 3.0, "{right} {expected}");
    }
}
