//! What a cell has come to.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use runs::{ModelFingerprint, Scores, Versions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Cell;

/// A cell that is done (`cell.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// The row of the table.
    pub row: String,
    /// The subject.
    pub subject: String,
    /// The training seed.
    pub seed: u64,
    /// Everything that decides the numbers: the training's configuration, the base model by its contents, prompts and sampler. A cell
    /// of another plan is not taken for this one's.
    pub made_by: Value,
    /// The CLIP that scored, by its contents.
    pub judge: ModelFingerprint,
    /// What learning took, and what it made; none for the bounds.
    pub cost: Option<Cost>,
    /// Seconds in which the images were generated; zero for real pictures.
    pub generate_seconds: f64,
    /// The cosine between the learned embedding and its start, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_cosine: Option<f64>,
    /// Versions of what the numbers depend on, by name.
    pub versions: Versions,
    /// The scores of all images.
    pub scores: Scores,
}

/// What learning took, and what it made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds of training steps.
    pub train_seconds: f64,
    /// The steps that were taken.
    pub steps: u64,
    /// The most memory in use while training, in bytes: of tensors on a GPU, of the process on a CPU.
    pub peak_memory: u64,
    /// Trained parameters: the most of any phase.
    pub trained_parameters: u64,
    /// The size of what was learned, in bytes as the run keeps it.
    pub learned_bytes: u64,
}

impl CellRecord {
    /// The file in a cell's folder that says it is done.
    pub const FILE: &str = "cell.json";

    /// The record in a cell's folder, if it is done.
    ///
    /// # Errors
    /// When the file is damaged, or of a cell of another plan.
    pub fn read(folder: &Path, cell: &Cell<'_>) -> Result<Option<Self>> {
        let path = folder.join(Self::FILE);
        if !path.exists() {
            return Ok(None);
        }
        let record: Self = json::read(&path, "a table's cell")?;
        ensure!(
            record.row == cell.row() && record.subject == cell.subject() && record.seed == cell.seed,
            "{} is of {}, {}, seed {}, and stands in the folder of {}: move it back",
            path.display(),
            record.subject,
            record.row,
            record.seed,
            cell.name()
        );
        Ok(Some(record))
    }

    /// Writes it into the cell's folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("a cell cannot be written as JSON")?;
        atomic::write(&folder.join(Self::FILE), text + "\n")
    }

    /// Refuses a record that other values have made.
    ///
    /// # Errors
    /// Names what differs.
    pub fn check(&self, made_by: &Value, judge: &ModelFingerprint, folder: &Path) -> Result<()> {
        let mut differences = runs::differences(&self.made_by, made_by);
        if self.judge.sha256 != judge.sha256 {
            differences.push(format!("the judge was {}, and is {}", self.judge.name, judge.name));
        }
        ensure!(
            differences.is_empty(),
            "the cell in {} was made with other values: {}; give those again, or another --out",
            folder.display(),
            differences.join("; ")
        );
        Ok(())
    }
}
