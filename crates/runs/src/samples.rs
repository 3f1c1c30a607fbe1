//! Images of a run: validation samples, and the subject beside the base model.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::layout;
use crate::read::{entries, read, write};

/// When validation images were generated: the stem of their file's name, `2-cross_attention-00040`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleTime {
    /// The phase's number, from 1.
    pub number: u64,
    /// The phase's name.
    pub phase: String,
    /// Steps done in the phase.
    pub step: usize,
}

impl SampleTime {
    /// The name of the file that shows where the subject acts in an image.
    pub fn attention_file(&self) -> String {
        format!("{self}-attention.png")
    }

    /// Reads the stem of a file's name.
    pub fn parse(stem: &str) -> Option<Self> {
        let [number, phase, step] = stem.splitn(3, '-').collect::<Vec<_>>().try_into().ok()?;
        Some(Self { number: number.parse().ok()?, phase: phase.to_owned(), step: step.parse().ok()? })
    }
}

impl fmt::Display for SampleTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:05}", self.number, self.phase, self.step)
    }
}

/// A grid of validation images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The file.
    pub path: PathBuf,
    /// When it was generated; none at the end of the run.
    pub time: Option<SampleTime>,
    /// Of the same time: where the subject acts in an image ([`SampleTime::attention_file`]), where that was asked for.
    pub attention: Option<PathBuf>,
}

/// The validation images of a run, in the order of its steps, and last those at its end.
///
/// # Errors
/// When the folder cannot be read.
pub fn samples(run: &Path) -> Result<Vec<Sample>> {
    let on_the_way = entries(&run.join(layout::VALIDATION))?.into_iter().filter_map(|path| {
        let png = path.extension().is_some_and(|extension| extension == "png");
        let time = path.file_stem().and_then(|stem| stem.to_str()).and_then(SampleTime::parse)?;
        let attention = Some(path.with_file_name(time.attention_file())).filter(|file| file.is_file());
        png.then_some(Sample { path, time: Some(time), attention })
    });
    let end = Some(run.join(layout::SAMPLES)).filter(|path| path.is_file());
    Ok(on_the_way.chain(end.map(|path| Sample { path, time: None, attention: None })).collect())
}

/// The subject beside the base model (`comparison/comparison.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The models' names for readers.
    pub columns: Vec<String>,
    /// A row for each prompt.
    pub rows: Vec<ComparisonRow>,
}

/// One prompt's images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparisonRow {
    /// The prompt, with `[V]` and the class noun for the subject.
    pub prompt: String,
    /// The seed of its images; none where there are none.
    pub seed: Option<u64>,
    /// The files, a column each, as seen from the record's folder.
    pub images: Vec<PathBuf>,
}

impl Comparison {
    /// Reads the comparison in a folder, if there is one.
    ///
    /// # Errors
    /// When `comparison.json` cannot be read or has another form; names the key.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read(&folder.join(layout::COMPARISON_RECORD), "a comparison with the base model")
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write(&folder.join(layout::COMPARISON_RECORD), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_in_the_order_of_the_steps() {
        let run = tempfile::tempdir().unwrap();
        assert!(samples(run.path()).unwrap().is_empty());
        std::fs::create_dir(run.path().join("validation")).unwrap();
        let time = |number, phase: &str, step| SampleTime { number, phase: phase.to_owned(), step };
        let times = [time(1, "embedding", 40), time(2, "cross_attention", 5), time(2, "cross_attention", 40)];
        let files = times.iter().rev().map(|time| format!("validation/{time}.png"));
        for file in files.chain(
            [
                "validation/other.png",
                "validation/1-embedding-00040-attention.png",
                "validation/1-a-1.txt",
                "samples.png",
            ]
            .map(str::to_owned),
        ) {
            std::fs::write(run.path().join(file), "").unwrap();
        }
        let found = samples(run.path()).unwrap();
        let attention = run.path().join("validation/1-embedding-00040-attention.png");
        assert_eq!(found.iter().filter_map(|sample| sample.attention.clone()).collect::<Vec<_>>(), [attention]);
        let found: Vec<_> = found.into_iter().map(|sample| sample.time).collect();
        assert_eq!(found, times.map(Some).into_iter().chain([None]).collect::<Vec<_>>());
    }
}
