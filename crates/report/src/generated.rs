//! The images that a run's folder holds, by prompt and seed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use crate::run::{Run, entries, json, list, text};
use crate::scores;

/// A generated image of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generated {
    /// With `[V] category` for the subject.
    pub(crate) prompt: String,
    /// Where it is not recorded, images of a prompt are told apart by their order.
    pub(crate) seed: u64,
    pub(crate) path: PathBuf,
}

impl Generated {
    /// Whether another run's image is of the same prompt and seed.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.prompt == other.prompt && self.seed == other.seed
    }
}

/// The images of evaluations (`evaluation/SET/scores.json`), of `generate` (`FOLDER/generate.jsonl`, a line an image; of
/// earlier versions `FOLDER/generate.json`), and of the comparison with the base model: the first of each prompt and seed.
pub(crate) fn generated(run: &Run) -> Result<Vec<Generated>> {
    let mut all: Vec<Generated> = Vec::new();
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    let mut add = |prompt: &str, seed: u64, path: PathBuf| -> Result<()> {
        let path = run.inside(path)?;
        let prompt = prompt.replace("{}", &format!("[V] {}", run.text("category")));
        let one = Generated { prompt, seed, path };
        // What the comparison shows is an evaluation's, by another path.
        let known = fs::canonicalize(&one.path).is_ok_and(|file| !files.insert(file));
        if one.path.is_file() && !known && !all.iter().any(|other| other.matches(&one)) {
            all.push(one);
        }
        Ok(())
    };
    let seed = |value: &Value, i: usize| value.get("seed").and_then(Value::as_u64).unwrap_or(i as u64);
    for (set, file) in run.evaluations()? {
        let set = run.folder.join("evaluation").join(set);
        for variant in scores::variants(&file).into_iter().filter(|variant| variant.name == scores::OWN) {
            for prompt in list(variant.scores, "prompts") {
                for (i, image) in list(prompt, "images").iter().enumerate() {
                    let path = set.join(variant.folder).join(text(image, "file"));
                    add(text(prompt, "prompt"), seed(image, i), path)?;
                }
            }
        }
    }
    for folder in entries(&run.folder)? {
        let lines = fs::read_to_string(folder.join("generate.jsonl")).unwrap_or_default();
        // A line that was cut off, as the process was killed, says nothing.
        for (i, image) in lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).enumerate() {
            add(text(&image, "prompt"), seed(&image, i), folder.join(text(&image, "file")))?;
        }
        let file = json(&folder.join("generate.json")).unwrap_or_default().unwrap_or_default();
        for (i, image) in list(&file, "pictures").iter().enumerate() {
            add(text(image, "prompt"), seed(image, i), folder.join(text(image, "file")))?;
        }
    }
    let file = run.json("comparison/comparison.json")?.unwrap_or_default();
    for row in list(&file, "rows") {
        let last = list(row, "images").last().and_then(Value::as_str).unwrap_or_default();
        add(text(row, "prompt"), seed(row, 0), run.folder.join("comparison").join(last))?;
    }
    Ok(all)
}

/// The files that the comparison with the base model shows, by their canonical paths: they may stand in other folders of
/// the run.
pub(crate) fn compared(run: &Run) -> Result<BTreeSet<PathBuf>> {
    let file = run.json("comparison/comparison.json")?.unwrap_or_default();
    let images = list(&file, "rows").iter().flat_map(|row| list(row, "images")).filter_map(Value::as_str);
    Ok(images.filter_map(|image| fs::canonicalize(run.folder.join("comparison").join(image)).ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn write(path: &Path, value: &Value) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    }

    #[test]
    fn each_line_of_a_log_of_generated_images_is_one_and_half_a_line_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        write(&run.join("config.json"), &json!({"config": {"category": "dog"}}));
        let line = |file: &str, seed: u64| json!({"file": file, "prompt": "a [V] dog", "seed": seed}).to_string();
        write(&run.join("images/0000-seed7.png"), &json!("an image"));
        write(&run.join("images/0002-seed9.png"), &json!("an image"));
        let lines = [
            line("0000-seed7.png", 7),
            line("0001-seed8.png", 8),
            "{\"file\": \"00".to_owned(),
            line("0002-seed9.png", 9),
        ];
        fs::write(run.join("images/generate.jsonl"), lines.join("\n")).unwrap();
        let all = generated(&Run::open(run).unwrap()).unwrap();
        assert_eq!(all.iter().map(|one| one.seed).collect::<Vec<_>>(), [7, 9], "the second's file is gone");
    }

    #[test]
    fn what_an_evaluation_and_the_comparison_show_is_one_image() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        write(&run.join("config.json"), &json!({"config": {"category": "dog"}}));
        let images = json!([{"file": "000-00.png", "seed": 7}]);
        let scores = json!({"prompts": [{"prompt": "a {}", "images": images}]});
        let variants = json!([{"name": "subject", "folder": "subject", "scores": scores}]);
        write(&run.join("evaluation/set/scores.json"), &json!({"variants": variants}));
        write(&run.join("evaluation/set/subject/000-00.png"), &json!("an image"));
        // As the training's end writes it, with the seed and (before) without.
        for seed in [json!(7), Value::Null] {
            let rows =
                json!([{"prompt": "a [V] dog", "seed": seed, "images": ["../evaluation/set/subject/000-00.png"]}]);
            write(&run.join("comparison/comparison.json"), &json!({"rows": rows}));
            let all = generated(&Run::open(run).unwrap()).unwrap();
            let prompts: Vec<_> = all.iter().map(|one| (one.prompt.as_str(), one.seed)).collect();
            assert_eq!(prompts, [("a [V] dog", 7)]);
        }
    }
}
