//! Whether a finished run is the one that is asked for.

use std::path::Path;

use anyhow::{Result, ensure};
use runs::TrainConfig;
use trainer::FinishedRun;

/// Refuses a run that other options have made. Its model and its photos are the same by their contents, wherever they are.
///
/// # Errors
/// Names what differs.
pub(crate) fn check(mut expected: TrainConfig, mut made: FinishedRun, run: &Path) -> Result<()> {
    // Where it is not given, the model says it.
    expected.augmentation.resolution = made.config.augmentation.resolution;
    let differences = runs::differences(&made.identity()?, &expected.identity()?);
    ensure!(
        differences.is_empty(),
        "the run in {} was made with other options: {}; give those again, or another --out",
        run.display(),
        differences.join("; ")
    );
    (made.config.model, made.config.concept) = (expected.model, expected.concept);
    made.base_model()?;
    made.photos()?;
    Ok(())
}
