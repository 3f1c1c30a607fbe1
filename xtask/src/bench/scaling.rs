//! How time and memory of a training step grow.

use anyhow::Context;
use serde::Serialize;

use super::options::Bench;
use super::report::{self, seconds};
use super::worker::{Measured, Setting, Workers};

/// One point of a curve.
#[derive(Serialize)]
struct Point {
    /// What grows.
    axis: &'static str,
    /// How large it is.
    value: u64,
    samples_per_step: u64,
    /// Why there is no number.
    failed: Option<String>,
    measured: Option<Measured>,
}

#[derive(Serialize)]
struct Numbers {
    #[serde(flatten)]
    setting: Setting,
    points: Vec<Point>,
}

pub(super) fn run(bench: &Bench) -> anyhow::Result<()> {
    let workers = Workers::new(bench)?;
    let mut numbers = Numbers { setting: workers.setting(), points: Vec::new() };
    // Of the large model a CPU does one image at a time where they grow, and small ones where batches do.
    let slow = bench.full && bench.device == "cpu";
    let sides: &[u64] = match (bench.full, slow) {
        (false, _) => &[64, 128, 256],
        (true, true) => &[128, 256, 512, 768],
        (true, false) => &[256, 512, 768],
    };
    let batch_side = if slow {
        128
    } else if bench.full {
        512
    } else {
        128
    };
    let side_batch = if slow { 1 } else { 8 };
    let batch = [1, 2, 4, 8, 16].iter().map(|&batch| ("batch size", batch, batch, batch_side));
    let side = sides.iter().map(|&side| ("pixels a side", side, side_batch, side));
    for (axis, value, batch, side) in batch.chain(side) {
        terminal::say!("{axis}: {value}");
        let line = format!("unet-step --batch-size {batch} --resolution {side} --iterations {}", bench.rounds);
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        // Where memory ends is part of the answer.
        let result = workers.measure(&args);
        let failed = result.as_ref().err().map(|error| format!("{error:#}"));
        numbers.points.push(Point { axis, value, samples_per_step: batch, failed, measured: result.ok() });
        report::write(&bench.out, &numbers)?;
    }
    for &photos in if bench.full { &[][..] } else { &[1, 10, 100] } {
        terminal::say!("photos: {photos}");
        let folder = workers.photos(photos)?;
        let few = "--set phases.embedding.steps=10 --set phases.cross_attention.steps=10 --set phases.unet.steps=20";
        let line = format!("training --images {folder} --iterations 1 --warm-up 0 {few}");
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let result = workers.measure(&args);
        let failed = result.as_ref().err().map(|error| format!("{error:#}"));
        let samples_per_step = SHORT_RUN;
        numbers.points.push(Point { axis: "photos", value: photos, samples_per_step, failed, measured: result.ok() });
        report::write(&bench.out, &numbers)?;
    }
    let title = format!(
        "Stage 3 of {}; batch sizes at {batch_side} px, sides at batch {side_batch}; photos of 512 px, a run of 40 steps of \
         batch 8 with its files",
        numbers.setting
    );
    let header = ["what grows", "", "time", "samples a second", "peak memory"].map(str::to_owned).to_vec();
    let rows = numbers.points.iter().map(row);
    report::table(&bench.out, &title, &std::iter::once(header).chain(rows).collect::<Vec<_>>())?;
    workers.plot(&bench.out, &bench.out.with_extension("png")).context("cannot plot the curves")
}

/// Samples that a run of forty steps sees.
const SHORT_RUN: u64 = 40 * 8;

fn row(point: &Point) -> Vec<String> {
    let mut row = vec![point.axis.to_owned(), point.value.to_string()];
    match (&point.measured, &point.failed) {
        (Some(measured), _) => row.extend([
            seconds(measured.best()),
            format!("{:.2}", point.samples_per_step as f64 / measured.best()),
            format!("{:.2} GB", measured.peak_memory_bytes as f64 / 1e9),
        ]),
        (None, failed) => row.extend([failed.clone().unwrap_or_default(), String::new(), String::new()]),
    }
    row
}
