//! Lines over numbers.

mod svg;

use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::iso_8859_1::{FONT_7X13, FONT_9X15_BOLD};
use embedded_graphics::text::Alignment;
use image::{Rgb, RgbImage, imageops};

use crate::axis::{Axis, Scale, Tick};
use crate::ink::Ink;

/// Lines are drawn this many times too large and then made smaller, which smooths their edges.
const FINE: u32 = 3;
const MARGIN: i32 = 20;
const SMALL: MonoFont = FONT_7X13;
const LARGE: MonoFont = FONT_9X15_BOLD;
const ROW: i32 = 17;

const PAPER: [u8; 3] = [255; 3];
const TITLE: [u8; 3] = [31, 35, 40];
const TEXT: [u8; 3] = [87, 94, 104];
const GRID: [u8; 3] = [233, 236, 240];
const BASE: [u8; 3] = [160, 167, 176];
const MARK: [u8; 3] = [176, 183, 192];

/// A line plot: named series over a common x axis, with ticks, a legend and vertical marks.
///
/// A value that is NaN or infinite, or not positive on a logarithmic axis, leaves a gap in its line.
///
/// ```
/// use images::{Plot, Scale};
///
/// let loss = (1..=100).map(|step| (f64::from(step), 1.0 / f64::from(step)));
/// let plot = Plot::new("loss", "step")
///     .scale(Scale::Log)
///     .line("training", Plot::COLORS[0], loss)
///     .mark(60.0, "lower learning rate")
///     .smooth(9);
/// assert_eq!(plot.draw(1200, 500).dimensions(), (1200, 500));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    title: String,
    x_label: String,
    scale: Scale,
    series: Vec<Series>,
    marks: Vec<(f64, String)>,
    window: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Series {
    name: String,
    color: [u8; 3],
    points: Vec<(f64, f64)>,
}

impl Plot {
    /// Colours that people with any colour vision can tell apart (Okabe and Ito 2008).
    pub const COLORS: [[u8; 3]; 6] =
        [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233]];

    /// An empty plot with a linear y axis.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            scale: Scale::Linear,
            series: Vec::new(),
            marks: Vec::new(),
            window: 1,
        }
    }

    /// The scale of the y axis.
    #[must_use]
    pub fn scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    /// Adds a line through `points` (x, y) in their order. An empty name is left out of the legend.
    #[must_use]
    pub fn line(
        mut self,
        name: impl Into<String>,
        color: [u8; 3],
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        self.series.push(Series { name: name.into(), color, points: points.into_iter().collect() });
        self
    }

    /// Adds a vertical line at `x` with a caption above it; it shows where `x` is within the lines' range.
    #[must_use]
    pub fn mark(mut self, x: f64, caption: impl Into<String>) -> Self {
        self.marks.push((x, caption.into()));
        self
    }

    /// Draws the mean of each `window` neighbouring points over the faint line itself; 1 draws only the line.
    #[must_use]
    pub fn smooth(mut self, window: usize) -> Self {
        self.window = window.max(1);
        self
    }

    /// The picture. Any size will do; what has no room is left out.
    pub fn draw(&self, width: u32, height: u32) -> RgbImage {
        let (width, height) = (width.max(1), height.max(1));
        let frame = Frame::new(self, width.cast_signed(), height.cast_signed());
        let mut fine = RgbImage::from_pixel(width * FINE, height * FINE, Rgb(PAPER));
        self.draw_lines(&frame, &mut Ink::new(&mut fine, FINE));
        let mut picture = imageops::thumbnail(&fine, width, height);
        self.draw_texts(&frame, &mut Ink::new(&mut picture, 1));
        picture
    }

    fn draw_lines(&self, frame: &Frame, ink: &mut Ink) {
        let Frame { left, right, top, bottom, .. } = *frame;
        for tick in &frame.y_ticks {
            let y = frame.y_at(tick.at);
            ink.line((f64::from(left), y), (f64::from(right), y), 1.0, GRID);
        }
        for tick in &frame.x_ticks {
            let x = frame.x_at(tick.at);
            ink.line((x, f64::from(bottom)), (x, f64::from(bottom + 4)), 1.0, BASE);
        }
        let bottom = f64::from(bottom);
        ink.line((f64::from(left), bottom), (f64::from(right), bottom), 1.0, BASE);
        for caption in &frame.captions {
            let from = if caption.text.is_empty() { top } else { caption.y + 2 };
            ink.dashes(caption.x, (f64::from(from), bottom), MARK);
        }
        let faint = |color: [u8; 3]| color.map(|c| (255 - (255 - u16::from(c)) * 3 / 10) as u8);
        if self.window > 1 {
            for series in &self.series {
                ink.curve(frame.places(&series.points), 1.2, faint(series.color));
            }
        }
        for series in &self.series {
            let points = smoothed(&series.points, self.window, self.scale);
            ink.curve(frame.places(&points), 2.0, series.color);
        }
        for entry in &frame.legend {
            let y = f64::from(entry.y + SMALL.character_size.height as i32 / 2);
            let x = f64::from(entry.x);
            ink.line((x, y), (x + 16.0, y), 3.0, entry.series.color);
        }
    }

    fn draw_texts(&self, frame: &Frame, ink: &mut Ink) {
        let Frame { left, right, bottom, .. } = *frame;
        ink.text(&self.title, (MARGIN, 14), Alignment::Left, &LARGE, TITLE);
        let half = SMALL.character_size.height as i32 / 2;
        for tick in &frame.y_ticks {
            ink.text(&tick.label, (left - 8, frame.y_at(tick.at) as i32 - half), Alignment::Right, &SMALL, TEXT);
        }
        for tick in &frame.x_ticks {
            ink.text(&tick.label, (frame.x_at(tick.at) as i32, bottom + 8), Alignment::Center, &SMALL, TEXT);
        }
        ink.text(&self.x_label, (left.midpoint(right), bottom + 8 + ROW), Alignment::Center, &SMALL, TEXT);
        for caption in &frame.captions {
            ink.text(caption.text, (caption.x as i32 + 5, caption.y), Alignment::Left, &SMALL, TEXT);
        }
        for entry in &frame.legend {
            ink.text(&entry.series.name, (entry.x + 22, entry.y), Alignment::Left, &SMALL, TITLE);
        }
        if self.series.iter().all(|series| frame.places(&series.points).all(|place| place.is_none())) {
            let middle = (left.midpoint(right), frame.top.midpoint(bottom) - half);
            ink.text("no data", middle, Alignment::Center, &SMALL, TEXT);
        }
    }
}

/// Where everything stands, in pixels.
struct Frame<'a> {
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
    x: Axis,
    y: Axis,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    legend: Vec<LegendEntry<'a>>,
    captions: Vec<Caption<'a>>,
}

struct LegendEntry<'a> {
    series: &'a Series,
    x: i32,
    y: i32,
}

struct Caption<'a> {
    text: &'a str,
    x: f64,
    y: i32,
}

impl<'a> Frame<'a> {
    fn new(plot: &'a Plot, width: i32, height: i32) -> Self {
        let points = || plot.series.iter().flat_map(|series| &series.points);
        // A point counts only as a whole.
        let shown = || points().filter(|(x, y)| Scale::Linear.place(*x).and(plot.scale.place(*y)).is_some());
        let x = Axis::tight(Scale::Linear, shown().map(|(x, _)| *x));
        let y = Axis::airy(plot.scale, shown().map(|(_, y)| *y));
        let (legend, top) = legend(plot, width);
        let bottom = height - 8 - 2 * ROW - 8;
        let y_ticks = y.ticks(((bottom - top) / 48).max(2) as usize);
        let widest = y_ticks.iter().map(|tick| text_width(&tick.label, &SMALL)).max().unwrap_or(0);
        let left = MARGIN + widest + 8;
        let right = (width - MARGIN - 4).max(left + 1);
        let x_ticks = x.ticks(((right - left) / 110).max(4) as usize);
        let mut frame = Self { left, right, top, bottom, x, y, x_ticks, y_ticks, legend, captions: Vec::new() };
        frame.place_captions(&plot.marks);
        frame.bottom = frame.bottom.max(frame.top + 1);
        frame
    }

    /// Puts captions side by side above the lines, in further rows where they would overlap.
    fn place_captions(&mut self, marks: &'a [(f64, String)]) {
        let mut ends: Vec<f64> = Vec::new();
        for (value, text) in marks {
            let Some(at) = self.x.at(*value).filter(|at| (0.0..=1.0).contains(at)) else { continue };
            let x = self.x_at(at);
            if text.is_empty() {
                self.captions.push(Caption { text, x, y: self.top });
                continue;
            }
            let row = ends.iter().position(|end| *end < x).unwrap_or(ends.len());
            if row == ends.len() {
                ends.push(x);
            }
            ends[row] = x + f64::from(text_width(text, &SMALL)) + 15.0;
            self.captions.push(Caption { text, x, y: self.top + row as i32 * ROW });
        }
        self.top += ends.len() as i32 * ROW;
    }

    fn x_at(&self, at: f64) -> f64 {
        f64::from(self.left) + at * f64::from(self.right - self.left)
    }

    fn y_at(&self, at: f64) -> f64 {
        f64::from(self.bottom) - at * f64::from(self.bottom - self.top)
    }

    fn places(&self, points: &[(f64, f64)]) -> impl Iterator<Item = Option<(f64, f64)>> {
        points.iter().map(|(x, y)| Some((self.x_at(self.x.at(*x)?), self.y_at(self.y.at(*y)?))))
    }
}

/// The legend, beside the title where it fits and else in rows below; and where the plot may start.
fn legend(plot: &Plot, width: i32) -> (Vec<LegendEntry<'_>>, i32) {
    let entry_width = |series: &Series| text_width(&series.name, &SMALL) + 22 + 20;
    let named = || plot.series.iter().filter(|series| !series.name.is_empty());
    let total: i32 = named().map(entry_width).sum();
    let title_row = 15;
    let beside = total + text_width(&plot.title, &LARGE) + 3 * MARGIN <= width;
    let (mut x, mut y) = if beside { (width - total, title_row) } else { (MARGIN, title_row + ROW + 4) };
    let mut entries = Vec::new();
    for series in named() {
        if !beside && x > MARGIN && x + entry_width(series) > width {
            (x, y) = (MARGIN, y + ROW);
        }
        entries.push(LegendEntry { series, x, y });
        x += entry_width(series);
    }
    (entries, y + ROW + 10)
}

fn text_width(text: &str, font: &MonoFont) -> i32 {
    text.chars().count() as i32 * font.character_size.width as i32
}

/// Each point's y as the mean over a window around it, fewer at the ends. A gap stays one and counts in no mean.
fn smoothed(points: &[(f64, f64)], window: usize, scale: Scale) -> Vec<(f64, f64)> {
    let visible = |(_, y): &(f64, f64)| scale.place(*y).map(|_| *y);
    let mean = |i: usize| {
        let around = &points[i.saturating_sub((window - 1) / 2)..(i + window / 2 + 1).min(points.len())];
        let (sum, count) = around.iter().filter_map(visible).fold((0.0, 0.0), |(s, n), y| (s + y, n + 1.0));
        sum / count
    };
    let smooth = |i: usize| (points[i].0, visible(&points[i]).map_or(f64::NAN, |_| mean(i)));
    (0..points.len()).map(smooth).collect()
}

#[cfg(test)]
mod tests;
