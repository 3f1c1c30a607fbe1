//! Trains the judge, or goes on with it: `cargo run --release -p attndreambooth-judge --example train -- DRAWINGS ANIMATIONS RUN OUT`.
//!
//! DRAWINGS and ANIMATIONS are folders `CODEPOINT.webp` of the npm packages @lobehub/fluent-emoji-3d and -anim-1 to -4 (MIT).

use std::path::Path;

use anyhow::{Result, bail};
use judge::Examination;
use tch::Device;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [drawings, animations, run, out] = arguments.as_slice() else {
        bail!("give the folders of the drawings and the animations, of the training and of the judge");
    };
    let miniature = Path::new("fixtures/miniature");
    let sources = judge::sources(drawings.as_ref(), animations.as_ref())?;
    let mut training = judge::training(&judge::preset(), &sources, miniature, run.as_ref(), Device::Cpu)?;
    terminal::say!("{:.2} M parameters", training.parameter_count() as f64 / 1e6);
    training.run(&|| false, &mut |report| {
        let values: Vec<String> = report.values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        terminal::say!("{} {}", report.step, values.join(" "));
    })?;
    let out: &Path = out.as_ref();
    judge::assemble(run.as_ref(), &sources, out)?;
    Examination::draw(&sources)?.save(&out.join("examination"))?;
    let check = judge::check(out, miniature, &Examination::open(&out.join("examination"))?, Device::Cpu)?;
    terminal::say!("{}", serde_json::to_string_pretty(&check)?);
    for failure in check.failures() {
        terminal::say!("falls short: {failure}");
    }
    Ok(())
}
