//! The images that a run's folder holds, by prompt and seed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use runs::{Comparison, layout};

use crate::run::Run;

/// A generated image of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generated {
    /// With `[V] category` for the subject.
    pub(crate) prompt: String,
    pub(crate) seed: u64,
    pub(crate) path: PathBuf,
}

impl Generated {
    /// Whether another run's image is of the same prompt and seed.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.prompt == other.prompt && self.seed == other.seed
    }
}

/// The images of evaluations, of `generate`, and of the comparison with the base model: the first of each prompt and seed.
pub(crate) fn generated(run: &Run) -> Result<Vec<Generated>> {
    let mut all: Vec<Generated> = Vec::new();
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    let mut add = |prompt: &str, seed: u64, path: PathBuf| -> Result<()> {
        let path = run.inside(path)?;
        let prompt = prompt.replace("{}", &format!("[V] {}", run.config().category));
        let one = Generated { prompt, seed, path };
        // The comparison shows an evaluation's images by another path.
        let known = fs::canonicalize(&one.path).is_ok_and(|file| !files.insert(file));
        if one.path.is_file() && !known && !all.iter().any(|other| other.matches(&one)) {
            all.push(one);
        }
        Ok(())
    };
    for (folder, evaluation) in runs::evaluations(run.folder())? {
        let Some(subject) = evaluation.subject() else { continue };
        for prompt in &subject.scores.prompts {
            for image in &prompt.images {
                add(&prompt.prompt, image.seed, folder.join(&subject.folder).join(&image.file))?;
            }
        }
    }
    let cannot = || format!("cannot read the folder {}", run.folder().display());
    let mut folders = Vec::new();
    for entry in fs::read_dir(run.folder()).with_context(cannot)? {
        folders.push(entry.with_context(cannot)?.path());
    }
    folders.sort();
    for folder in folders.into_iter().filter(|path| path.is_dir()) {
        for image in runs::read_images(&folder)? {
            add(&image.prompt, image.seed, folder.join(&image.file))?;
        }
    }
    let folder = run.folder().join(layout::COMPARISON);
    for row in Comparison::read(&folder)?.into_iter().flat_map(|comparison| comparison.rows) {
        if let Some(last) = row.images.last() {
            add(&row.prompt, row.seed.unwrap_or(0), folder.join(last))?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use runs::{ImageEntry, RunFolder, RunRecord, TrainConfig};

    use super::*;

    #[test]
    fn each_line_of_a_log_of_generated_images_is_one_and_half_a_line_is_none() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("run");
        let config = TrainConfig { category: "dog".into(), ..TrainConfig::paper() };
        let record = RunRecord { config, ..RunRecord::default() };
        RunFolder::create(&folder).unwrap().write_record(&record, "2", "Cpu").unwrap();
        let line = |file: &str, seed: u64| {
            let entry = ImageEntry { file: file.into(), prompt: "a {}".into(), seed, ..ImageEntry::default() };
            serde_json::to_string(&entry).unwrap()
        };
        fs::create_dir(folder.join("images")).unwrap();
        for file in ["0000-seed7.png", "0002-seed9.png"] {
            fs::write(folder.join("images").join(file), "an image").unwrap();
        }
        let [first, second, third] =
            [("0000-seed7.png", 7), ("0001-seed8.png", 8), ("0002-seed9.png", 9)].map(|(file, seed)| line(file, seed));
        fs::write(
            folder.join("images/generate.jsonl"),
            [&first, &second, &first[..10], &third].map(String::from).join("\n"),
        )
        .unwrap();
        let all = generated(&Run::open(&folder).unwrap()).unwrap();
        let found: Vec<_> = all.iter().map(|one| (one.prompt.as_str(), one.seed)).collect();
        assert_eq!(found, [("a [V] dog", 7), ("a [V] dog", 9)], "the second's file is gone");
    }
}
