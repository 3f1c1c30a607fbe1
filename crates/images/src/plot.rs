//! Line plots, as SVG and as images.

use std::fmt::{self, Display};

use image::RgbImage;

use crate::axis::{Axis, Scale, Tick};
use crate::svg::{self, Escaped, rasterise};

const MARGIN: i32 = 20;
const ROW: i32 = 17;
const FONT_SIZE: f64 = 12.5;

// All but the lines has the colour of the text around the plot.
const GRID: &str = r#"class="grid" stroke="currentColor" stroke-opacity=".13""#;
const BASE: &str = r#"class="base" stroke="currentColor" stroke-opacity=".5""#;
const MARK: &str = r#"class="mark" stroke="currentColor" stroke-opacity=".35" stroke-dasharray="4 4""#;
const TITLE: &str = r#"font-weight="600" fill="currentColor""#;
const NAME: &str = r#"fill="currentColor""#;
const LEFT: &str = r#"fill="currentColor" fill-opacity=".75""#;
const RIGHT: &str = r#"fill="currentColor" fill-opacity=".75" text-anchor="end""#;
const CENTER: &str = r#"fill="currentColor" fill-opacity=".75" text-anchor="middle""#;

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

    /// The plot as an image with dark text on white, of any size.
    pub fn draw(&self, width: u32, height: u32) -> RgbImage {
        rasterise(&self.svg(width, height))
    }

    /// The plot as an `<svg>` element that takes the colour of the text around it, but for the lines.
    ///
    /// For scripts that tell the values under a pointer, the group of each line has `data-name`, its own
    /// `stroke`, and `data-points`: for each point its place across, x, y and the smoothed y, with spaces between them and a
    /// semicolon between points. `data-top` and `data-bottom` of the plot are the heights between which the lines are.
    pub fn svg(&self, width: u32, height: u32) -> String {
        let (width, height) = (width.max(1), height.max(1));
        let frame = Frame::new(self, width.cast_signed(), height.cast_signed());
        let mut svg = Svg(format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{}" data-top="{}" data-bottom="{}" fill="none" stroke-linecap="round" stroke-linejoin="round" font-family="system-ui, sans-serif" font-size="{FONT_SIZE}">"#,
            Escaped(&self.title),
            frame.top,
            frame.bottom
        ));
        svg.axes(self, &frame);
        for series in &self.series {
            svg.series(self, &frame, series);
        }
        for LegendEntry { series, x, y } in &frame.legend {
            let [x, y] = [x, y].map(|place| f64::from(*place));
            svg.path(
                &format!(r#"stroke="{}" stroke-width="3""#, Color(series.color)),
                format_args!("M{x} {}h15", y + 6.5),
            );
            svg.text(NAME, (x + 22.0, y + 11.0), &series.name);
        }
        if self.series.iter().all(|series| frame.places(&series.points).all(|place| place.is_none())) {
            let middle = [frame.left.midpoint(frame.right), frame.top.midpoint(frame.bottom)].map(f64::from);
            svg.text(CENTER, (middle[0], middle[1] + 4.0), "no data");
        }
        svg.0.push_str("</svg>");
        svg.0
    }
}

/// The layout, in pixels.
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
        // A point counts only where both of its numbers do.
        let shown = || points().filter(|(x, y)| Scale::Linear.place(*x).and(plot.scale.place(*y)).is_some());
        let x = Axis::tight(Scale::Linear, shown().map(|(x, _)| *x));
        let y = Axis::with_margin(plot.scale, shown().map(|(_, y)| *y));
        let (legend, top) = legend(plot, width);
        let bottom = height - 8 - 2 * ROW - 8;
        let y_ticks = y.ticks(((bottom - top) / 48).max(2) as usize);
        let widest = y_ticks.iter().map(|tick| text_width(&tick.label)).max().unwrap_or(0);
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
            ends[row] = x + f64::from(text_width(text)) + 15.0;
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
    let entry_width = |series: &Series| text_width(&series.name) + 22 + 20;
    let named = || plot.series.iter().filter(|series| !series.name.is_empty());
    let total: i32 = named().map(entry_width).sum();
    let title_row = 15;
    let beside = total + text_width(&plot.title) + 3 * MARGIN <= width;
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

fn text_width(text: &str) -> i32 {
    svg::text_width(text, FONT_SIZE).ceil() as i32
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

/// An element that is being written.
struct Svg(String);

impl Svg {
    fn path(&mut self, style: &str, path: impl Display) {
        self.0 += &format!(r#"<path {style} d="{path}"/>"#);
    }

    fn text(&mut self, style: &str, (x, y): (f64, f64), text: &str) {
        if !text.is_empty() {
            self.0 += &format!(r#"<text {style} x="{x:.1}" y="{y:.1}">{}</text>"#, Escaped(text));
        }
    }

    fn axes(&mut self, plot: &Plot, frame: &Frame) {
        let Frame { left, right, top, bottom, .. } = *frame;
        for tick in &frame.y_ticks {
            let y = frame.y_at(tick.at);
            self.path(GRID, format_args!("M{left} {y:.1}H{right}"));
            self.text(RIGHT, (f64::from(left - 8), y + 4.0), &tick.label);
        }
        for tick in &frame.x_ticks {
            let x = frame.x_at(tick.at);
            self.path(BASE, format_args!("M{x:.1} {bottom}v4"));
            self.text(CENTER, (x, f64::from(bottom + 19)), &tick.label);
        }
        self.path(BASE, format_args!("M{left} {bottom}H{right}"));
        self.text(CENTER, (f64::from(left.midpoint(right)), f64::from(bottom + 19 + ROW)), &plot.x_label);
        self.text(TITLE, (f64::from(MARGIN), 26.0), &plot.title);
        for caption in &frame.captions {
            let from = if caption.text.is_empty() { top } else { caption.y + 2 };
            self.path(MARK, format_args!("M{:.1} {from}V{bottom}", caption.x));
            self.text(LEFT, (caption.x + 5.0, f64::from(caption.y + 11)), caption.text);
        }
    }

    fn series(&mut self, plot: &Plot, frame: &Frame, series: &Series) {
        let smooth = smoothed(&series.points, plot.window, plot.scale);
        let places: Vec<_> = frame.places(&series.points).collect();
        let points = places.iter().zip(&series.points).zip(&smooth).filter_map(|((place, (x, y)), (_, mean))| {
            place.map(|(across, _)| format!("{across:.1} {x} {y:.4e} {mean:.4e}"))
        });
        let points = points.collect::<Vec<_>>().join(";");
        let (name, color) = (Escaped(&series.name), Color(series.color));
        self.0 += &format!(r#"<g data-name="{name}" data-points="{points}" stroke="{color}">"#);
        if plot.window > 1 {
            self.path(r#"class="raw" stroke-opacity=".3""#, Runs(&places));
        }
        let places: Vec<_> = frame.places(&smooth).collect();
        self.path(r#"class="line" stroke-width="2""#, Runs(&places));
        for alone in places.split(Option::is_none).filter(|run| run.len() == 1) {
            self.path(r#"class="line" stroke-width="5""#, Runs(alone));
        }
        self.0 += "</g>";
    }
}

/// A line through places, interrupted at each `None`; a place that stands alone is a dot.
struct Runs<'a>(&'a [Option<(f64, f64)>]);

impl Display for Runs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for run in self.0.split(Option::is_none) {
            for (i, (x, y)) in run.iter().flatten().enumerate() {
                write!(f, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' })?;
            }
            if run.len() == 1 {
                f.write_str("h0")?;
            }
        }
        Ok(())
    }
}

struct Color([u8; 3]);

impl Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.0;
        write!(f, "#{r:02x}{g:02x}{b:02x}")
    }
}

#[cfg(test)]
mod tests;
