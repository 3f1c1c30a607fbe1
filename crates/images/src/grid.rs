//! Images side by side, each with a caption.

use image::{Rgb, RgbImage, imageops};

use crate::svg::{Escaped, rasterise, text_width};

const GAP: u32 = 8;
const FONT_SIZE: f64 = 15.0;
const LINE_HEIGHT: u32 = 18;
const PAPER: Rgb<u8> = Rgb([255; 3]);

/// A table of images with captions, filled row by row.
#[derive(Debug, Clone)]
pub struct Grid {
    columns: usize,
    cells: Vec<(RgbImage, String)>,
}

impl Grid {
    /// An empty grid of so many columns (at least one).
    pub fn new(columns: usize) -> Self {
        Self { columns: columns.max(1), cells: Vec::new() }
    }

    /// Adds an image at the next place; an empty caption takes no room.
    pub fn push(&mut self, image: RgbImage, caption: impl Into<String>) {
        self.cells.push((image, caption.into()));
    }

    /// What the grid holds, in a grid of its own; nothing is left in this one.
    pub fn take(&mut self) -> Self {
        Self { columns: self.columns, cells: std::mem::take(&mut self.cells) }
    }

    /// The whole table as one image: cells as large as the largest image, captions below.
    pub fn draw(&self) -> RgbImage {
        let width = self.cells.iter().map(|(image, _)| image.width()).max().unwrap_or(1);
        let rows: Vec<Row> = self.cells.chunks(self.columns).map(|cells| Row::new(cells, width)).collect();
        let columns = self.columns.min(self.cells.len().max(1)) as u32;
        let height: u32 = rows.iter().map(|row| row.height() + GAP).sum::<u32>() + GAP;
        let mut sheet = RgbImage::from_pixel(columns * (width + GAP) + GAP, height, PAPER);
        let mut top = GAP;
        for row in &rows {
            for (column, (image, _)) in (0..).zip(row.cells) {
                imageops::replace(&mut sheet, image, i64::from(GAP + column * (width + GAP)), i64::from(top));
            }
            if row.height() > row.images_height {
                let captions = row.draw_captions(sheet.width(), width + GAP);
                imageops::replace(&mut sheet, &captions, 0, i64::from(top + row.images_height));
            }
            top += row.height() + GAP;
        }
        sheet
    }
}

struct Row<'a> {
    cells: &'a [(RgbImage, String)],
    captions: Vec<Vec<String>>,
    images_height: u32,
}

impl<'a> Row<'a> {
    fn new(cells: &'a [(RgbImage, String)], width: u32) -> Self {
        let captions = cells.iter().map(|(_, caption)| wrap(caption, width)).collect();
        let images_height = cells.iter().map(|(image, _)| image.height()).max().unwrap_or(0);
        Self { cells, captions, images_height }
    }

    fn height(&self) -> u32 {
        let lines = self.captions.iter().map(Vec::len).max().unwrap_or(0) as u32;
        self.images_height + if lines == 0 { 0 } else { lines * LINE_HEIGHT + 2 }
    }

    /// The band below the images, as wide as the sheet, with a caption every `pitch` pixels.
    fn draw_captions(&self, sheet_width: u32, pitch: u32) -> RgbImage {
        let height = self.height() - self.images_height;
        let mut svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {sheet_width} {height}" font-family="monospace" font-size="{FONT_SIZE}">"#
        );
        for (column, caption) in (0..).zip(&self.captions) {
            for (line, text) in (1..).zip(caption) {
                let (x, y) = (GAP + column * pitch, line * LINE_HEIGHT - 3);
                svg += &format!(r#"<text x="{x}" y="{y}">{}</text>"#, Escaped(text));
            }
        }
        rasterise(&(svg + "</svg>"))
    }
}

/// `text` in lines of at most `width` pixels, broken at spaces where possible; a line has at least one character.
fn wrap(text: &str, width: u32) -> Vec<String> {
    let fits = |text: &str| text_width(text, FONT_SIZE) <= f64::from(width);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if fits(&format!("{line} {word}")) => {
                line.push(' ');
                line.push_str(word);
            }
            _ if fits(word) => lines.push(word.to_owned()),
            _ => {
                let mut line = String::new();
                for letter in word.chars() {
                    if !line.is_empty() && !fits(&format!("{line}{letter}")) {
                        lines.push(std::mem::take(&mut line));
                    }
                    line.push(letter);
                }
                lines.push(line);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_where_they_belong() {
        let mut grid = Grid::new(2);
        for shade in [10, 20, 30] {
            grid.push(RgbImage::from_pixel(20, 10, Rgb([shade; 3])), "");
        }
        let sheet = grid.draw();
        assert_eq!(sheet.dimensions(), (8 + 28 + 28, 8 + 18 + 18));
        assert_eq!([(8, 8), (36, 8), (8, 26), (36, 26)].map(|(x, y)| sheet.get_pixel(x, y).0[0]), [10, 20, 30, 255]);
    }

    #[test]
    fn captions_make_room_below() {
        let mut grid = Grid::new(3);
        grid.push(RgbImage::new(45, 10), "two lines of text");
        assert_eq!(grid.draw().height(), 8 + 10 + 4 * LINE_HEIGHT + 2 + 8);
        assert_eq!(Grid::new(3).draw().dimensions(), (17, 8));
    }

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        let columns = |n: f64| (n * text_width("x", FONT_SIZE)).ceil() as u32;
        assert_eq!(wrap("a photo of a cat", columns(9.0)), ["a photo", "of a cat"]);
        assert_eq!(wrap("extraordinary cat", columns(5.0)), ["extra", "ordin", "ary", "cat"]);
        assert_eq!(wrap("狐狸", columns(3.0)), ["狐", "狸"], "these are twice as wide");
        assert_eq!(wrap("ab", 0), ["a", "b"]);
        assert!(wrap("  ", 90).is_empty());
    }

    #[test]
    fn a_caption_is_below_its_image() {
        let mut grid = Grid::new(2);
        for caption in ["", "Füchse"] {
            grid.push(RgbImage::from_pixel(80, 10, PAPER), caption);
        }
        let sheet = grid.draw();
        let ink = sheet.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] < 128);
        let (left, top) = ink.fold((u32::MAX, u32::MAX), |(left, top), (x, y, _)| (left.min(x), top.min(y)));
        assert!((96..100).contains(&left) && (18..26).contains(&top), "{left} {top}");
    }
}
