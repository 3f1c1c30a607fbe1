//! Whether a finished run is the one that is asked for.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use model_files::BaseModel;
use photos::PhotoFolder;
use runs::{ModelFingerprint, SavedRun, TrainConfig};

/// Refuses a run that other options have made. Its model and its photos are the same by their contents, wherever they are.
///
/// # Errors
/// Names what differs.
pub(crate) fn check(mut expected: TrainConfig, made: &SavedRun, run: &Path) -> Result<()> {
    // Where it is not given, the model says it.
    expected.augmentation.resolution = made.config().augmentation.resolution;
    let differences = runs::differences(&made.config().identity()?, &expected.identity()?);
    ensure!(
        differences.is_empty(),
        "the run in {} was made with other options: {}; give those again, or another --out",
        run.display(),
        differences.join("; ")
    );
    let model = BaseModel::open(&expected.model, &made.config().model_options)?;
    made.check_base(&ModelFingerprint::of(model.path(), model.files()?)?, model.path())?;
    let found = PhotoFolder::open(&expected.concept).context("the run's photos (--concept)")?;
    made.arrange(0, found.photos, &expected.concept)?;
    Ok(())
}
