//! A plot as SVG, for pages.

use std::fmt::{self, Display};

use super::{Frame, LegendEntry, MARGIN, Plot, ROW, Series, smoothed};
use crate::Escaped;

// What is not a line has the colour of the text around the picture.
const GRID: &str = r#"class="grid" stroke="currentColor" stroke-opacity=".13""#;
const BASE: &str = r#"class="base" stroke="currentColor" stroke-opacity=".5""#;
const MARK: &str = r#"class="mark" stroke="currentColor" stroke-opacity=".35" stroke-dasharray="4 4""#;
const TITLE: &str = r#"font-weight="600" fill="currentColor""#;
const NAME: &str = r#"fill="currentColor""#;
const LEFT: &str = r#"fill="currentColor" fill-opacity=".75""#;
const RIGHT: &str = r#"fill="currentColor" fill-opacity=".75" text-anchor="end""#;
const CENTER: &str = r#"fill="currentColor" fill-opacity=".75" text-anchor="middle""#;

impl Plot {
    /// The picture as an `<svg>` element that takes the colour of the text around it, but for the lines.
    ///
    /// For scripts that tell the values under a pointer, the group of each line has `data-name`, its own
    /// `stroke`, and `data-points`: for each point its place across, x, y and the smoothed y, with spaces between them and a
    /// semicolon between points. `data-top` and `data-bottom` of the whole say between which heights the lines are.
    pub fn svg(&self, width: u32, height: u32) -> String {
        let (width, height) = (width.max(1), height.max(1));
        let frame = Frame::new(self, width.cast_signed(), height.cast_signed());
        let mut svg = Svg(format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{}" data-top="{}" data-bottom="{}" fill="none" stroke-linecap="round" stroke-linejoin="round" font-family="system-ui, sans-serif" font-size="12.5">"#,
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
        svg.0.push_str("</svg>");
        svg.0
    }
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
mod tests {
    use super::*;

    fn plot(values: &[f64]) -> Plot {
        let points = values.iter().enumerate().map(|(i, value)| (i as f64, *value));
        Plot::new("loss", "step").line("first", [0, 114, 178], points).mark(1.0, "here")
    }

    /// What stands between `from` and the next quotation mark.
    fn after<'a>(svg: &'a str, from: &str) -> &'a str {
        svg.split_once(from).unwrap().1.split('"').next().unwrap()
    }

    #[test]
    fn the_line_is_where_the_picture_has_it() {
        let plot = plot(&[0.0, 1.0, 0.5]);
        let frame = Frame::new(&plot, 600, 400);
        let svg = plot.svg(600, 400);
        let expected: Vec<String> =
            frame.places(&plot.series[0].points).map(Option::unwrap).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        assert_eq!(after(&svg, r#"class="line" stroke-width="2" d=""#), format!("M{}", expected.join("L")));
        assert!(!svg.contains(r#"class="raw""#) && plot.smooth(3).svg(600, 400).contains(r#"class="raw""#));
        assert!(svg.contains(">here</text>") && svg.contains(">step</text>") && svg.contains(">first</text>"));
    }

    #[test]
    fn every_value_can_be_read_back() {
        let svg = plot(&[0.25, f64::NAN, 1e-7]).smooth(2).svg(600, 400);
        let points: Vec<Vec<f64>> = after(&svg, r#"data-points=""#)
            .split(';')
            .map(|point| point.split(' ').map(|number| number.parse().unwrap()).collect())
            .collect();
        assert_eq!(points.len(), 2, "a gap has no value");
        assert_eq!((points[0][1..].to_vec(), points[1][1..].to_vec()), (vec![0.0, 0.25, 0.25], vec![2.0, 1e-7, 1e-7]));
    }

    #[test]
    fn gaps_are_left_open_and_a_single_point_is_a_dot() {
        let line =
            |values: &[f64]| after(&plot(values).svg(600, 400), r#"class="line" stroke-width="2" d=""#).to_owned();
        let open = line(&[1.0, 2.0, f64::NAN, 1.0, 1.0]);
        assert_eq!((open.matches('M').count(), open.matches('L').count()), (2, 2));
        assert!(line(&[5.0]).ends_with("h0"));
        assert_eq!(line(&[f64::INFINITY]), "");
    }

    #[test]
    fn texts_cannot_leave_their_place() {
        let hostile = r#""><script>alert('1 & 2')</script>"#;
        let svg = Plot::new(hostile, hostile).line(hostile, [0; 3], [(0.0, 1.0)]).mark(0.0, hostile).svg(600, 400);
        assert!(!svg.contains("<script") && !svg.contains(r#"""#.repeat(2).as_str()), "{svg}");
        // Title twice, label, name twice, mark.
        assert_eq!(svg.matches("&quot;&gt;&lt;script&gt;alert(&#39;1 &amp; 2&#39;)&lt;/script&gt;").count(), 6);
    }

    #[test]
    fn any_size_will_do() {
        for (width, height) in [(0, 0), (1, 1), (10, 300), (300, 10)] {
            assert!(plot(&[1.0, -1e300]).svg(width, height).ends_with("</svg>"));
        }
    }
}
