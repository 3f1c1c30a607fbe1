//! What a finished run is looked at by: its subject beside the base model, their scores, and a page of everything.

use std::path::Path;

use anyhow::{Context, Result};
use images::{Grid, RgbImage};
use libtorch::DeviceChoice;
use runs::{Comparison, ComparisonRow, Validation};

use crate::evaluate::{Evaluate, Prepared};

/// Draws each of the prompts once with the base model and once with what was learned, from the same noise, and writes
/// `comparison/`, scores (where there is a CLIP) and `report.html` into the run's folder.
pub(crate) fn show(run: &Path, validation: &Validation, device: DeviceChoice) -> Result<()> {
    let _span = profile::span("train/results");
    let evaluate = Evaluate { images: 1, base: true, ..Evaluate::new(run, &validation.results, device) };
    let mut prepared = evaluate.prepare()?;
    prepared.draw()?;
    compare(run, &prepared)?;
    match prepared.extractor() {
        Ok(extractor) => prepared.judge(&extractor)?,
        Err(error) => terminal::note!("the pictures are not scored: {error:#}"),
    }
    let page = run.join("report.html");
    atomic::write(&page, report::run_page(run)?)?;
    terminal::say!("{} shows everything", page.display());
    Ok(())
}

/// The grid as a picture, and as data for the page.
fn compare(run: &Path, prepared: &Prepared) -> Result<()> {
    let folder = run.join("comparison");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let drawn = prepared.drawn();
    let subject = format!("[V] {}", prepared.category());
    // The base model first: before, and after.
    let columns =
        [("base", "base model", prepared.category().to_owned()), ("subject", "personalised", subject.clone())];
    let mut grid = Grid::new(2 * columns.len());
    let mut rows = Vec::new();
    for (number, prompt) in prepared.prompts().prompts.iter().enumerate() {
        let (mut images, mut seed) = (Vec::new(), None);
        for (name, title, said) in &columns {
            let pictures = drawn.iter().find(|(candidate, _)| candidate == name).map(|(_, pictures)| pictures);
            let Some(picture) = pictures.and_then(|pictures| pictures.get(number)) else { continue };
            seed = Some(picture.seed);
            grid.push(read(&picture.path)?, format!("{title}: {}", prompt.with(said)));
            let relative = picture.path.strip_prefix(run).unwrap_or(&picture.path);
            images.push(Path::new("..").join(relative));
        }
        rows.push(ComparisonRow { prompt: prompt.with(&subject), seed, images });
    }
    images::save_generated(&folder.join("comparison.png"), &grid.draw(), &[])?;
    let columns = columns.iter().map(|(_, title, _)| (*title).to_owned()).collect();
    Comparison { columns, rows }.write(&folder)
}

fn read(path: &Path) -> Result<RgbImage> {
    Ok(image::open(path).with_context(|| format!("cannot read {}", path.display()))?.into_rgb8())
}
