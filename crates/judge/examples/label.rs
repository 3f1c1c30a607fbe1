//! Measures how often a person and the reader of a judge say the same of generated images, and writes that beside the judge:
//! `cargo run --release -p attndreambooth-judge --example label -- JUDGE [LABELS]`.
//!
//! LABELS is a text file with a line for each image: its file, its prompt with `{}` for the subject, background, colour, style and the
//! things that the prompt asks for and the image shows (`-` for none), with `|` between them. They are put together as
//! `examination/labelled.jpg` and `.json` of the judge; without LABELS, those that are there are read again.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use attributes::Reading;
use judge::{Labelled, LabelledImage};
use tch::Device;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, labels) = match arguments.as_slice() {
        [folder] => (Path::new(folder), None),
        [folder, labels] => (Path::new(folder), Some(labels)),
        _ => bail!("give the judge's folder, and the file of labels where there are new ones"),
    };
    let examination = folder.join("examination");
    if let Some(labels) = labels {
        read(labels)?.save(&examination)?;
    }
    let labelled =
        Labelled::open(&examination)?.context("the judge has no labelled images: give the file of labels")?;
    let agreement = labelled.agreement(folder, Device::Cpu)?;
    terminal::say!("{}", serde_json::to_string_pretty(&agreement)?);
    let said = serde_json::to_string(&agreement.obeyed)?;
    atomic::write(&folder.join(attributes::AGREEMENT), said + "\n")
}

fn read(labels: &str) -> Result<Labelled> {
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
    Labelled::new(images, seen)
}
