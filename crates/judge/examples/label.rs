//! Puts generated images and what a person sees on them together, as `examination/labelled.jpg` and `.json` of a judge:
//! `cargo run --release -p attndreambooth-judge --example label -- JUDGE LABELS`.
//!
//! LABELS is a text file with a line for each image: its file, its prompt with `{}` for the subject, background, colour, style and the
//! things that the prompt asks for and the image shows (`-` for none), with `|` between them. Prints how often the judge's reader says
//! the same, and writes that beside the judge.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use attributes::Reading;
use judge::{Labelled, LabelledImage};
use tch::Device;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, labels] = arguments.as_slice() else { bail!("give the judge's folder and the file of labels") };
    let folder = Path::new(folder);
    let (mut images, mut seen) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(labels)?.lines().filter(|line| !line.trim().is_empty()) {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        ensure!(parts.len() == 6, "{line:?} has not six parts");
        images.push(image::open(parts[0]).with_context(|| format!("cannot read {}", parts[0]))?.into_rgb8());
        let word = |part: usize| parts[part].to_owned();
        let things = parts[5].split(',').map(str::trim).filter(|thing| *thing != "-").map(str::to_owned).collect();
        let reading = Reading { background: word(2), color: word(3), style: word(4), things };
        seen.push(LabelledImage { prompt: word(1), seen: reading });
    }
    Labelled::new(images, seen)?.save(&folder.join("examination"))?;
    let labelled = Labelled::open(&folder.join("examination"))?.context("the labels are not there")?;
    let agreement = labelled.agreement(folder, Device::Cpu)?;
    terminal::say!("{}", serde_json::to_string_pretty(&agreement)?);
    let said = serde_json::to_string(&agreement.obeyed)?;
    Ok(std::fs::write(folder.join(attributes::AGREEMENT), said + "\n")?)
}
