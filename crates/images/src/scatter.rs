//! Scatter plots of named points with intervals in both directions.

use image::RgbImage;

use crate::Plot;
use crate::axis::{Axis, Scale, Tick};
use crate::svg::{self, Escaped, rasterise};

const FONT_SIZE: f64 = 12.5;
/// Around the points.
const MARGIN: f64 = 20.0;
/// Below them, for numbers and the axis's name.
const FOOT: f64 = 48.0;
/// Between a point and its name.
const GAP: f64 = 7.0;

/// A point of a scatter plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// What stands beside it.
    pub name: String,
    /// Across: the interval's lower end, the value, the upper end.
    pub x: [f64; 3],
    /// Up, likewise.
    pub y: [f64; 3],
}

/// Named points with an interval in each direction, as scores of several systems.
///
/// ```
/// use images::{Point, Scatter};
///
/// let plot = Scatter::new("identity and text", "identity", "text")
///     .point(Point { name: "ours".to_owned(), x: [0.6, 0.7, 0.8], y: [0.2, 0.3, 0.35] });
/// assert_eq!(plot.draw(600, 400).dimensions(), (600, 400));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Scatter {
    title: String,
    x_label: String,
    y_label: String,
    points: Vec<Point>,
}

impl Scatter {
    /// A plot without points.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        Self { title: title.into(), x_label: x_label.into(), y_label: y_label.into(), points: Vec::new() }
    }

    /// Adds a point; one whose numbers are not all finite is left out.
    #[must_use]
    pub fn point(mut self, point: Point) -> Self {
        if point.x.iter().chain(&point.y).all(|number| number.is_finite()) {
            self.points.push(point);
        }
        self
    }

    /// The plot as an image with dark text on white.
    pub fn draw(&self, width: u32, height: u32) -> RgbImage {
        rasterise(&self.svg(width, height))
    }

    /// The plot as an `<svg>` element that takes the colour of the text around it, but for the points.
    pub fn svg(&self, width: u32, height: u32) -> String {
        let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
        let numbers = |of: fn(&Point) -> &[f64; 3]| self.points.iter().flat_map(move |point| *of(point));
        let x = Axis::with_margin(Scale::Linear, numbers(|point| &point.x));
        let y = Axis::with_margin(Scale::Linear, numbers(|point| &point.y));
        let y_ticks = y.ticks((height / 60.0) as usize);
        let widest = y_ticks.iter().map(|tick| text_width(&tick.label)).fold(0.0, f64::max);
        let frame =
            Frame { left: MARGIN + widest + 8.0, right: width - MARGIN, top: 58.0, bottom: height - FOOT, x, y };
        let mut svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{}" fill="none" stroke-linecap="round" font-family="system-ui, sans-serif" font-size="{FONT_SIZE}">"#,
            Escaped(&self.title)
        );
        frame.axes(&mut svg, self, &y_ticks, &frame.x.ticks((width / 110.0) as usize));
        let mut taken = Vec::new();
        for (number, point) in self.points.iter().enumerate() {
            frame.point(&mut svg, point, Plot::COLORS[number % Plot::COLORS.len()], &mut taken);
        }
        svg + "</svg>"
    }
}

struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: Axis,
    y: Axis,
}

/// A box that a text covers.
type Covered = [f64; 4];

impl Frame {
    fn x_at(&self, value: f64) -> f64 {
        self.left + self.x.at(value).unwrap_or(0.0) * (self.right - self.left)
    }

    fn y_at(&self, value: f64) -> f64 {
        self.bottom - self.y.at(value).unwrap_or(0.0) * (self.bottom - self.top)
    }

    fn axes(&self, svg: &mut String, plot: &Scatter, y_ticks: &[Tick], x_ticks: &[Tick]) {
        let Self { left, right, top, bottom, .. } = *self;
        let mut path = |style: &str, d: String| *svg += &format!(r#"<path {style} d="{d}"/>"#);
        const GRID: &str = r#"stroke="currentColor" stroke-opacity=".13""#;
        for tick in y_ticks {
            path(GRID, format!("M{left:.1} {:.1}H{right:.1}", bottom - tick.at * (bottom - top)));
        }
        for tick in x_ticks {
            path(GRID, format!("M{:.1} {top:.1}V{bottom:.1}", left + tick.at * (right - left)));
        }
        let mut text = |anchor: &str, weight: &str, (x, y): (f64, f64), text: &str| {
            *svg += &format!(
                r#"<text fill="currentColor" text-anchor="{anchor}" font-weight="{weight}" x="{x:.1}" y="{y:.1}">{}</text>"#,
                Escaped(text)
            );
        };
        for tick in y_ticks {
            text("end", "400", (left - 8.0, bottom - tick.at * (bottom - top) + 4.0), &tick.label);
        }
        for tick in x_ticks {
            text("middle", "400", (left + tick.at * (right - left), bottom + 19.0), &tick.label);
        }
        text("middle", "400", (left.midpoint(right), bottom + 38.0), &plot.x_label);
        text("start", "600", (MARGIN, 22.0), &plot.title);
        text("start", "400", (MARGIN, 44.0), &plot.y_label);
    }

    /// The point, its intervals, and its name beside it where that covers no other name.
    fn point(&self, svg: &mut String, point: &Point, [r, g, b]: [u8; 3], taken: &mut Vec<Covered>) {
        let ([x_low, x, x_high], [y_low, y, y_high]) = (point.x.map(|x| self.x_at(x)), point.y.map(|y| self.y_at(y)));
        let color = format!("#{r:02x}{g:02x}{b:02x}");
        *svg += &format!(
            r#"<path stroke="{color}" stroke-width="1.5" stroke-opacity=".7" d="M{x_low:.1} {y:.1}H{x_high:.1}M{x:.1} {y_low:.1}V{y_high:.1}"/><circle fill="{color}" cx="{x:.1}" cy="{y:.1}" r="4.5"/>"#
        );
        let width = text_width(&point.name);
        let above = [
            (x + GAP, y - GAP),
            (x - GAP - width, y - GAP),
            (x + GAP, y + GAP + 9.0),
            (x - GAP - width, y + GAP + 9.0),
        ];
        // Further and further up and down where all sides are taken.
        let further = (1..12).flat_map(|row| [-1.0, 1.0].map(|way| (x + GAP, y - GAP + way * 15.0 * f64::from(row))));
        let covered = |(x, y): (f64, f64)| [x, y - 11.0, x + width, y + 3.0];
        let inside = |[left, top, right, bottom]: &Covered| {
            *left >= self.left && *right <= self.right + MARGIN && *top >= self.top - 14.0 && *bottom <= self.bottom
        };
        let free = |place: &(f64, f64)| {
            let own = covered(*place);
            inside(&own)
                && taken
                    .iter()
                    .all(|other| own[2] < other[0] || other[2] < own[0] || own[3] < other[1] || other[3] < own[1])
        };
        let place = above.into_iter().chain(further).find(free).unwrap_or((x + GAP, y - GAP));
        taken.push(covered(place));
        *svg += &format!(
            r#"<text fill="currentColor" x="{:.1}" y="{:.1}">{}</text>"#,
            place.0,
            place.1,
            Escaped(&point.name)
        );
    }
}

fn text_width(text: &str) -> f64 {
    svg::text_width(text, FONT_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, x: f64, y: f64) -> Point {
        Point { name: name.to_owned(), x: [x - 0.1, x, x + 0.1], y: [y - 0.1, y, y + 0.1] }
    }

    #[test]
    fn points_stand_where_their_numbers_are_and_names_apart() {
        let plot = Scatter::new("<both>", "x", "y").point(point("one", 0.5, 0.5)).point(point("two", 0.5, 0.5));
        let svg = plot.clone().point(point("nan", f64::NAN, 0.5)).svg(600, 400);
        assert_eq!(svg, plot.svg(600, 400));
        assert!(svg.contains("&lt;both&gt;") && !svg.contains("<both>"));
        let places = |name: &str| {
            let text = svg.split("<text").find(|text| text.contains(&format!(">{name}<"))).unwrap();
            let number = |key: &str| -> f64 {
                let rest = text.split(&format!(" {key}=\"")).nth(1).unwrap();
                rest.split('"').next().unwrap().parse().unwrap()
            };
            (number("x"), number("y"))
        };
        let (one, two) = (places("one"), places("two"));
        assert!((one.0 - two.0).abs() > text_width("one") || (one.1 - two.1).abs() > 13.0, "{one:?} {two:?}");
        // Higher values stand higher, and further to the right.
        let plot = Scatter::new("", "x", "y").point(point("low", 0.2, 0.2)).point(point("high", 0.8, 0.8));
        let circles: Vec<f64> = plot
            .svg(600, 400)
            .split("<circle")
            .skip(1)
            .flat_map(|circle| {
                let number = |key: &str| circle.split(key).nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
                [number("cx=\""), number("cy=\"")]
            })
            .collect();
        assert!(circles[2] > circles[0] && circles[3] < circles[1], "{circles:?}");
        assert!(Scatter::new("", "", "").svg(100, 100).ends_with("</svg>"));
    }
}
