//! Loss curves from a log.
#![allow(clippy::unwrap_used)]

use images::{Plot, Scale};
use runs::{Entry, curves, draw_curves};

fn log(attention: impl Fn(u64) -> f64) -> Vec<Entry> {
    let stage = |step| if step <= 60 { "embedding" } else { "cross_attention" };
    let values = |step| [("diffusion_loss", 0.1), ("attention_loss", attention(step)), ("peak_memory", 1e9)];
    (1..=160).map(|step| Entry::now(step, stage(step), values(step))).collect()
}

/// What [`curves`] shall draw of such a log.
fn expected(title: &str, scale: Scale, value: impl Fn(u64) -> f64) -> Plot {
    let points =
        |steps: std::ops::RangeInclusive<u64>| steps.map(|step| (step as f64, value(step))).collect::<Vec<_>>();
    Plot::new(title, "step")
        .scale(scale)
        .smooth(4)
        .line("embedding", Plot::COLORS[0], points(1..=60))
        .mark(1.0, "")
        .line("cross attention", Plot::COLORS[1], points(61..=160))
        .mark(61.0, "")
}

#[test]
fn each_loss_has_a_plot_with_a_line_for_each_phase() {
    let attention = |step: u64| 0.01 / (step * step) as f64;
    let plots = curves(&log(attention));
    let attention = expected("attention loss", Scale::Log, attention);
    assert_eq!(plots, [attention, expected("diffusion loss", Scale::Linear, |_| 0.1)]);
}

#[test]
fn a_loss_that_is_always_zero_is_left_out() {
    assert_eq!(curves(&log(|_| 0.0)), [expected("diffusion loss", Scale::Linear, |_| 0.1)]);
}

#[test]
fn the_image_has_every_colour_of_every_plot() {
    let image = draw_curves(&curves(&log(|step| 1.0 / step as f64)));
    assert_eq!(image.dimensions(), (1200 + 16, 2 * 400 + 24));
    for color in &Plot::COLORS[..2] {
        for half in [0..400, 408..808] {
            let rows = half.flat_map(|y| (0..1200).map(move |x| (x, y)));
            let ink = rows.filter(|(x, y)| image.get_pixel(*x, *y).0 == *color).count();
            assert!(ink > 50, "{color:?}: {ink}");
        }
    }
}

#[test]
fn short_and_broken_logs_are_drawn_too() {
    assert!(curves(&[]).is_empty());
    draw_curves(&[]);
    for length in [1, 2, 5] {
        for value in [f64::NAN, f64::INFINITY, -1.0, 1e-300, 1.0] {
            let log: Vec<Entry> = (1..=length).map(|step| Entry::now(step, "s", [("loss", value)])).collect();
            assert_eq!(draw_curves(&curves(&log)).dimensions(), (1216, 416));
        }
    }
    // Only some entries have the value.
    let log = [Entry::now(1, "s", [("loss", 1.0)]), Entry::now(2, "s", []), Entry::now(3, "t", [])];
    draw_curves(&curves(&log));
}
