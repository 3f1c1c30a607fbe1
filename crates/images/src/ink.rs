//! Strokes and text in the coordinates of a plot.

use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{Circle, Line, PrimitiveStyle, StyledDrawable};
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};
use image::RgbImage;

use crate::canvas::Canvas;

/// A pen over a picture that is `scale` times as large as its coordinates say.
pub(crate) struct Ink<'a> {
    canvas: Canvas<'a>,
    scale: f64,
}

impl<'a> Ink<'a> {
    pub(crate) fn new(picture: &'a mut RgbImage, scale: u32) -> Self {
        Self { canvas: Canvas(picture), scale: f64::from(scale) }
    }

    /// A straight stroke.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, color: [u8; 3]) {
        let style = PrimitiveStyle::with_stroke(rgb(color), (width * self.scale).round() as u32);
        let line = Line::new(self.point(from), self.point(to));
        let Ok(()) = line.draw_styled(&style, &mut self.canvas);
    }

    /// A vertical dashed stroke.
    pub(crate) fn dashes(&mut self, x: f64, (from, to): (f64, f64), color: [u8; 3]) {
        let mut y = from;
        while y < to {
            self.line((x, y), (x, (y + 4.0).min(to)), 1.0, color);
            y += 8.0;
        }
    }

    /// A line through points, interrupted at each `None`; a point that stands alone is a dot.
    pub(crate) fn curve(&mut self, places: impl Iterator<Item = Option<(f64, f64)>>, width: f64, color: [u8; 3]) {
        let places: Vec<Option<(f64, f64)>> = places.collect();
        for run in places.split(Option::is_none) {
            let run: Vec<(f64, f64)> = run.iter().copied().flatten().collect();
            if let [alone] = run[..] {
                self.dot(alone, width * 2.5, color);
            }
            for pair in run.windows(2) {
                self.line(pair[0], pair[1], width, color);
            }
            // Strokes end square; dots of their width make the corners and ends round.
            for place in run {
                self.dot(place, width, color);
            }
        }
    }

    fn dot(&mut self, center: (f64, f64), width: f64, color: [u8; 3]) {
        let dot = Circle::with_center(self.point(center), (width * self.scale).round() as u32);
        let Ok(()) = dot.draw_styled(&PrimitiveStyle::with_fill(rgb(color)), &mut self.canvas);
    }

    /// One line of text, its upper left, middle or right point at (x, y).
    pub(crate) fn text(
        &mut self,
        text: &str,
        (x, y): (i32, i32),
        alignment: Alignment,
        font: &MonoFont,
        color: [u8; 3],
    ) {
        let style = TextStyleBuilder::new().alignment(alignment).baseline(Baseline::Top).build();
        let text = Text::with_text_style(text, Point::new(x, y), MonoTextStyle::new(font, rgb(color)), style);
        let Ok(_) = text.draw(&mut self.canvas);
    }

    /// The middle of a coarse pixel is that of its fine ones.
    fn point(&self, (x, y): (f64, f64)) -> Point {
        let fine = |value: f64| (value * self.scale + (self.scale - 1.0) / 2.0).round() as i32;
        Point::new(fine(x), fine(y))
    }
}

fn rgb([r, g, b]: [u8; 3]) -> Rgb888 {
    Rgb888::new(r, g, b)
}
