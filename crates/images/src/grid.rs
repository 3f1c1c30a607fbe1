//! Pictures side by side, each with a line of text.

use image::{Rgb, RgbImage, imageops};

use crate::label::{LINE_HEIGHT, draw, wrap};

const GAP: u32 = 8;
const PAPER: Rgb<u8> = Rgb([255; 3]);

/// A table of pictures with captions, filled row by row.
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

    /// Adds a picture at the next place; an empty caption takes no room.
    pub fn push(&mut self, picture: RgbImage, caption: impl Into<String>) {
        self.cells.push((picture, caption.into()));
    }

    /// What the grid holds, in a grid of its own; nothing is left in this one.
    pub fn take(&mut self) -> Self {
        Self { columns: self.columns, cells: std::mem::take(&mut self.cells) }
    }

    /// The whole table as one picture: cells as large as the largest picture, captions below.
    pub fn draw(&self) -> RgbImage {
        let width = self.cells.iter().map(|(picture, _)| picture.width()).max().unwrap_or(1);
        let rows: Vec<Row> = self.cells.chunks(self.columns).map(|cells| Row::new(cells, width)).collect();
        let columns = self.columns.min(self.cells.len().max(1)) as u32;
        let height: u32 = rows.iter().map(|row| row.height() + GAP).sum::<u32>() + GAP;
        let mut sheet = RgbImage::from_pixel(columns * (width + GAP) + GAP, height, PAPER);
        let mut top = GAP;
        for row in &rows {
            let mut left = GAP;
            for ((picture, _), caption) in row.cells.iter().zip(&row.captions) {
                imageops::replace(&mut sheet, picture, i64::from(left), i64::from(top));
                for (line, y) in caption.iter().zip((top + row.pictures_height + 2..).step_by(LINE_HEIGHT as usize)) {
                    draw(&mut sheet, line, left, y);
                }
                left += width + GAP;
            }
            top += row.height() + GAP;
        }
        sheet
    }
}

struct Row<'a> {
    cells: &'a [(RgbImage, String)],
    captions: Vec<Vec<String>>,
    pictures_height: u32,
}

impl<'a> Row<'a> {
    fn new(cells: &'a [(RgbImage, String)], width: u32) -> Self {
        let captions = cells.iter().map(|(_, caption)| wrap(caption, width)).collect();
        let pictures_height = cells.iter().map(|(picture, _)| picture.height()).max().unwrap_or(0);
        Self { cells, captions, pictures_height }
    }

    fn height(&self) -> u32 {
        let lines = self.captions.iter().map(Vec::len).max().unwrap_or(0) as u32;
        self.pictures_height + if lines == 0 { 0 } else { lines * LINE_HEIGHT + 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_where_they_belong() {
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
}
