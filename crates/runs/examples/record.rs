//! Records an invented run that is killed and resumed: `cargo run -p attndreambooth-runs --example record -- FOLDER`, then look at
//! `curves.png` and `tensorboard --logdir FOLDER`. `python fixtures/runs/check.py FOLDER` compares the two records.

use std::path::{Path, PathBuf};

use runs::{Entry, Log, RunFolder, Scalars};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let path = PathBuf::from(std::env::args().nth(1).unwrap_or("recorded-run".to_owned()));
    let config = json!({"embedding": {"steps": 60}, "cross_attention": {"steps": 100}, "unet": {"steps": 500}});

    let run = RunFolder::create(&path)?;
    run.write_config(&config, [("example", env!("CARGO_PKG_VERSION"))])?;
    steps(run.path(), 0, 330)?;
    drop(run);

    // The last checkpoint was of step 300.
    let run = RunFolder::resume(&path)?;
    let changes = runs::differences(&run.saved_config()?.config, &config);
    anyhow::ensure!(changes.is_empty(), "resume with a changed configuration: {}", changes.join("; "));
    steps(run.path(), 300, 660)?;

    let curves = runs::draw_curves(&runs::curves(&runs::read_log(run.path())?));
    images::save_png(&path.join("curves.png"), &curves, &[])
}

/// Does and records the steps after `done`, up to `until`.
fn steps(folder: &Path, done: u64, until: u64) -> anyhow::Result<()> {
    let mut log = Log::open(folder, done)?;
    let mut scalars = Scalars::open(folder, done)?;
    for step in done + 1..=until {
        let noise = ((step as f64 * 12.9898).sin() * 43_758.545_3).rem_euclid(1.0);
        let diffusion = 0.05 + 0.15 * noise + 0.1 * (-(step as f64) / 200.0).exp();
        let (stage, weight, start) = match step {
            ..=60 => ("embedding", 0.1, 0),
            61..=160 => ("cross_attention", 2.0, 60),
            161.. => ("unet", 2.0, 160),
        };
        let attention = weight * 1e-4 * (0.5 + noise) * (0.05 + (-((step - start) as f64) / 30.0).exp());
        let entry = Entry::now(step, stage, [("diffusion_loss", diffusion), ("attention_loss", attention)]);
        log.append(&entry)?;
        scalars.append(&entry)?;
    }
    log.sync()
}
