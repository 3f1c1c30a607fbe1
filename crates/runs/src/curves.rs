//! The log as plots.

use std::collections::BTreeMap;

use images::{Grid, Plot, RgbImage, Scale};

use crate::Entry;

/// Which values are losses: those whose names end so.
const LOSS: &str = "loss";
/// A loss whose values, but for the outermost twentieths, span more than this ratio is shown on a logarithmic axis.
const WIDE: f64 = 20.0;
/// The smoothed line shows about so many features over the whole run.
const FEATURES: usize = 40;

/// A plot for each loss in a log (the values whose names end in `loss`), over the steps of the run, each phase in its own
/// colour behind a mark at its first step; smoothed over the faint line. A loss that is not positive anywhere is left out.
pub fn curves(log: &[Entry]) -> Vec<Plot> {
    let mut losses: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in log.iter().flat_map(|entry| &entry.values).filter(|(name, _)| name.ends_with(LOSS)) {
        losses.entry(name).or_default().push(*value);
    }
    losses.retain(|_, values| values.iter().any(|value| *value != 0.0));
    losses.into_iter().map(|(name, values)| curve(log, name, values)).collect()
}

/// Plots as one image, each of 1200 × 400, one below the other.
pub fn draw_curves(plots: &[Plot]) -> RgbImage {
    let mut grid = Grid::new(1);
    for plot in plots {
        grid.push(plot.draw(1200, 400), "");
    }
    grid.draw()
}

fn curve(log: &[Entry], name: &str, values: Vec<f64>) -> Plot {
    let readable = |name: &str| name.replace('_', " ");
    let window = values.len() / FEATURES;
    let scale = if spans_widely(values) { Scale::Log } else { Scale::Linear };
    let mut plot = Plot::new(readable(name), "step").scale(scale).smooth(window);
    let phases = log.chunk_by(|a, b| a.phase == b.phase);
    for (phase, color) in phases.zip(Plot::COLORS.into_iter().cycle()) {
        let points = phase.iter().filter_map(|entry| Some((entry.step as f64, *entry.values.get(name)?)));
        let phase_name = readable(&phase[0].phase);
        plot = plot.line(phase_name, color, points).mark(phase[0].step as f64, "");
    }
    plot
}

fn spans_widely(mut values: Vec<f64>) -> bool {
    values.retain(|value| value.is_finite() && *value > 0.0);
    values.sort_by(f64::total_cmp);
    let outermost = values.len() / 20;
    let inner = &values[outermost..values.len() - outermost];
    matches!((inner.first(), inner.last()), (Some(least), Some(most)) if most / least > WIDE)
}
