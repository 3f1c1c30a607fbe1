//! An evaluation as a file and as a table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Bootstrap, ClipName, Estimate, Metrics, Scores};

/// What `scores.json` says: everything that a table or a page of the evaluation shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The CLIP that judged.
    pub clip: ClipName,
    /// The name of the prompt set.
    pub prompt_set: String,
    /// Pictures of each prompt.
    pub images_per_prompt: usize,
    /// The seed that each picture's is derived from.
    pub seed: u64,
    /// The word for what the subject is.
    pub category: String,
    /// The photos that pictures are compared with.
    pub photos: Vec<PathBuf>,
    /// How intervals were found.
    pub bootstrap: Bootstrap,
    /// Versions of what the numbers depend on, by name.
    pub versions: BTreeMap<String, String>,
    /// What was judged, such as the learned subject beside the base model.
    pub variants: Vec<Variant>,
}

/// The pictures of one model and their scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// What tables call it.
    pub name: String,
    /// The folder of its pictures, as seen from that of `scores.json`.
    pub folder: PathBuf,
    /// How they were drawn, as in `recipe.json`.
    pub recipe: Value,
    /// Their scores.
    pub scores: Scores,
}

impl Record {
    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        atomic::write(path, text)
    }

    /// Reads what [`Record::save`] wrote.
    ///
    /// # Errors
    /// When the file is not there or of another form.
    pub fn open(path: &Path) -> Result<Self> {
        json::read(path, "the scores of an evaluation")
    }

    /// A table for people: which CLIP, the means with their intervals, by kind and by prompt.
    pub fn table(&self) -> String {
        let masked = self.variants.iter().any(|variant| variant.scores.mean.clip_i_masked.is_some());
        let mut rows = vec![vec![String::new(), "CLIP-I".to_owned(), "CLIP-T".to_owned()]];
        rows[0].push(format!("CLIP-T without {:?}", self.category));
        if masked {
            rows[0].push("CLIP-I masked".to_owned());
        }
        for Variant { name, scores, .. } in &self.variants {
            rows.push(row(name, &scores.mean, &with_interval));
        }
        for Variant { name, scores, .. } in &self.variants {
            rows.push(Vec::new());
            rows.push(vec![format!("{name}, by kind")]);
            for kind in &scores.kinds {
                rows.push(row(&format!("  {} ({})", kind.kind, kind.prompts), &kind.mean, &with_interval));
            }
            rows.push(vec![format!("{name}, by prompt")]);
            for prompt in &scores.prompts {
                rows.push(row(&format!("  {}", prompt.prompt), &prompt.mean, &|estimate| {
                    format!("{:.4}", estimate.mean)
                }));
            }
        }
        let prompts = self.variants.first().map_or(0, |variant| variant.scores.prompts.len());
        format!(
            "{}: {prompts} prompts x {} images, {} photos; judged by {} ({}); {:.0} % intervals\n\n{}",
            self.prompt_set,
            self.images_per_prompt,
            self.photos.len(),
            self.clip.name,
            self.clip.folder.display(),
            self.bootstrap.level * 100.0,
            align(&rows)
        )
    }
}

fn row(name: &str, scores: &Metrics<Estimate>, show: &dyn Fn(&Estimate) -> String) -> Vec<String> {
    let numbers =
        [Some(scores.clip_i), Some(scores.clip_t), Some(scores.clip_t_without_category), scores.clip_i_masked];
    std::iter::once(name.to_owned()).chain(numbers.iter().flatten().map(show)).collect()
}

fn with_interval(estimate: &Estimate) -> String {
    format!("{:.4} [{:.4}, {:.4}]", estimate.mean, estimate.low, estimate.high)
}

/// Columns as wide as their widest cell.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
