//! What a finished run is shown with: its subject beside the base model, their scores, and a page of everything.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use images::{Grid, RgbImage};
use options::DeviceChoice;
use requests::{Compute, Evaluate};
use runs::{Comparison, ComparisonRow, Validation};
use serde::Serialize;

use crate::context::Context;
use crate::evaluate::Evaluation;

/// What shows a finished run.
#[derive(Debug, Clone, Serialize)]
pub struct FinishedResults {
    /// The page of everything.
    pub page: PathBuf,
    /// The scores, where there is a CLIP.
    pub scores: Option<PathBuf>,
}

/// Generates each of the prompts once with the base model and once with what was learned, from the same noise, and writes
/// `comparison/`, scores (where there is a CLIP) and `report.html` into the run's folder.
pub(crate) fn show(
    run: &Path,
    validation: &Validation,
    device: DeviceChoice,
    context: &Context<'_>,
) -> Result<FinishedResults> {
    let _span = tracing::trace_span!("train/results").entered();
    let prompts = Some(validation.results.clone());
    let compute = Compute { device, ..Compute::default() };
    let request = Evaluate { prompts, images: 1, base: true, compute, ..Evaluate::new(run) };
    let mut evaluation = Evaluation::prepare(&request, context)?;
    evaluation.generate(context)?;
    compare(run, &evaluation)?;
    let scores = match evaluation.extractor(context) {
        Ok(extractor) => Some(evaluation.score(&extractor, context)?.0),
        Err(error) => {
            context.note(format!("the images are not scored: {error:#}"));
            None
        }
    };
    let page = run.join("report.html");
    atomic::write(&page, ::report::run_page(run)?)?;
    context.message(format!("{} shows everything", page.display()));
    Ok(FinishedResults { page, scores })
}

/// The grid as an image, and as data for the page.
fn compare(run: &Path, evaluation: &Evaluation<'_>) -> Result<()> {
    let folder = run.join("comparison");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let generated = evaluation.generated();
    let subject = format!("[V] {}", evaluation.category());
    // The base model first: before, and after.
    let columns =
        [("base", "base model", evaluation.category().to_owned()), ("subject", "personalised", subject.clone())];
    let mut grid = Grid::new(2 * columns.len());
    let mut rows = Vec::new();
    for (number, prompt) in evaluation.prompts().prompts.iter().enumerate() {
        let (mut images, mut seed) = (Vec::new(), None);
        for (name, title, said) in &columns {
            let own = generated.iter().find(|(candidate, _)| candidate == name).map(|(_, images)| images);
            let Some(image) = own.and_then(|images| images.get(number)) else { continue };
            seed = Some(image.seed);
            grid.push(read(&image.path)?, format!("{title}: {}", prompt.with(said)));
            let relative = image.path.strip_prefix(run).unwrap_or(&image.path);
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
