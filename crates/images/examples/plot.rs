//! Draws an invented loss: `cargo run -p attndreambooth-images --example plot -- plot.png`.

use std::path::PathBuf;

use images::{Plot, Scale};

fn main() -> anyhow::Result<()> {
    let path = PathBuf::from(std::env::args().nth(1).unwrap_or("plot.png".to_owned()));
    let noise = |i: u32| ((f64::from(i) * 12.9898).sin() * 43758.5453).rem_euclid(1.0);
    let loss = |from: u32, to: u32| {
        (from..=to).map(move |i| (f64::from(i), (0.02 + 0.3 * (-f64::from(i) / 150.0).exp()) * (0.5 + noise(i))))
    };
    let plot = Plot::new("diffusion loss", "step")
        .scale(Scale::Log)
        .line("embedding", Plot::COLORS[0], loss(1, 60))
        .line("cross attention", Plot::COLORS[1], loss(61, 160))
        .line("unet", Plot::COLORS[2], loss(161, 660))
        .mark(1.0, "stage 1")
        .mark(61.0, "stage 2")
        .mark(161.0, "stage 3")
        .smooth(15);
    images::save_png(&path, &plot.draw(1200, 500), &[])?;
    let linear = path.with_extension("linear.png");
    images::save_png(&linear, &plot.scale(Scale::Linear).draw(1200, 500), &[])
}
