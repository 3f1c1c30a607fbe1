//! Text in pictures, in a fixed-width bitmap font.

use embedded_graphics::mono_font::iso_8859_1::FONT_9X15;
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};
use image::RgbImage;

use crate::canvas::Canvas;

const FONT: MonoFont = FONT_9X15;
pub(crate) const LINE_HEIGHT: u32 = FONT.character_size.height + 2;

/// `text` in lines of at most `width` pixels, broken at spaces where possible.
pub(crate) fn wrap(text: &str, width: u32) -> Vec<String> {
    let columns = (width / FONT.character_size.width).max(1) as usize;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for (i, piece) in letters.chunks(columns).enumerate() {
            let piece: String = piece.iter().collect();
            match lines.last_mut() {
                Some(line) if i == 0 && line.chars().count() + 1 + piece.chars().count() <= columns => {
                    line.push(' ');
                    line.push_str(&piece);
                }
                _ => lines.push(piece),
            }
        }
    }
    lines
}

/// Draws one line of black text with its upper left corner at (x, y).
pub(crate) fn draw(picture: &mut RgbImage, line: &str, x: u32, y: u32) {
    let style = MonoTextStyle::new(&FONT, Rgb888::BLACK);
    let at = Point::new(x.cast_signed(), y.cast_signed());
    let Ok(_) = Text::with_baseline(line, at, style, Baseline::Top).draw(&mut Canvas(picture));
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        assert_eq!(wrap("a photo of a cat", 9 * 9), ["a photo", "of a cat"]);
        assert_eq!(wrap("extraordinary", 9 * 5), ["extra", "ordin", "ary"]);
        assert!(wrap("  ", 90).is_empty());
    }

    #[test]
    fn text_leaves_ink_and_never_leaves_the_picture() {
        let mut picture = RgbImage::from_pixel(40, 10, Rgb([255; 3]));
        draw(&mut picture, "longer than the picture", 5, 2);
        assert!(picture.pixels().any(|pixel| pixel.0 == [0; 3]));
    }
}
