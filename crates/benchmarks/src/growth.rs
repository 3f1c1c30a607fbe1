//! Time and memory as work grows, as curves.

use std::path::Path;

use anyhow::{Result, ensure};
use images::{Grid, Plot};
use serde::Deserialize;

/// What `cargo xtask bench --scaling` writes, as far as it is drawn.
#[derive(Deserialize)]
struct Numbers {
    points: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    axis: String,
    value: f64,
    samples_per_step: f64,
    measured: Option<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    seconds: Vec<f64>,
    peak_memory_bytes: f64,
}

/// What the figure's text says of it.
const MARK: (&str, &str) = ("Software", "attndreambooth bench");

/// Draws the numbers in the JSON file `numbers` to the PNG file `out`: for each axis, samples a second and peak memory.
///
/// # Errors
/// When a file cannot be read or written, `out` is there and not such a figure, or there is nothing to draw.
pub fn draw_growth(numbers: &Path, out: &Path) -> Result<()> {
    let is_own = |out: &Path| {
        let texts = images::png_texts(out).unwrap_or_default();
        texts.iter().any(|(keyword, text)| (keyword.as_str(), text.as_str()) == MARK)
    };
    atomic::ensure_ours(out, "a figure of this program", is_own)?;
    let Numbers { points } = json::read(numbers, "the measurements of `bench --scaling`")?;
    let mut axes: Vec<&str> = Vec::new();
    for point in &points {
        if !axes.contains(&point.axis.as_str()) {
            axes.push(&point.axis);
        }
    }
    ensure!(!axes.is_empty(), "{} has no points to draw", numbers.display());
    let mut grid = Grid::new(2);
    for axis in axes {
        let curve = |value: &dyn Fn(&Point, &Measured) -> f64| -> Vec<(f64, f64)> {
            let points = points.iter().filter(|point| point.axis == axis);
            points.filter_map(|point| Some((point.value, value(point, point.measured.as_ref()?)))).collect()
        };
        let rate = curve(&|point, measured| {
            point.samples_per_step / measured.seconds.iter().copied().fold(f64::INFINITY, f64::min)
        });
        let memory = curve(&|_, measured| measured.peak_memory_bytes / 1e9);
        for (title, color, line) in [("samples a second", 0, rate), ("peak memory in GB", 1, memory)] {
            grid.push(Plot::new(title, axis).line("", Plot::COLORS[color], line).draw(600, 300), "");
        }
    }
    images::save_png(out, &grid.draw(), &[MARK])
}
