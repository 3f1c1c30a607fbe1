//! Words for a subject that augmentation has made small or large.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::text;

/// Where the prompt goes in a phrase.
const GAP: &str = "{}";

/// The sets in `phrases`, which the program carries with it.
const SETS: [(&str, &str); 2] = [
    ("custom-diffusion", include_str!("../phrases/custom-diffusion.json")),
    ("miniature", include_str!("../phrases/miniature.json")),
];

/// What a prompt says of a photo that Custom Diffusion's augmentation has pasted small or cropped; each phrase has `{}`
/// where the prompt goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizePhrases {
    /// Who made them.
    #[serde(default)]
    pub source: String,
    /// Of a subject that is small: `a far away {}`. Where there are none, prompts stay as they are.
    pub far: Vec<String>,
    /// Of a subject that is large: `zoomed in {}`; likewise.
    pub near: Vec<String>,
}

impl SizePhrases {
    /// The names of the sets that need no file: `custom-diffusion` is its authors' and diffusers', `miniature` is in
    /// the words of the miniature.
    pub fn names() -> Vec<&'static str> {
        SETS.map(|(name, _)| name).to_vec()
    }

    /// A set by its name, or from a user's JSON file of the same form as those in `phrases`.
    ///
    /// # Errors
    /// When there is neither, or the file is not of that form, or a phrase has no `{}` for the prompt.
    pub fn load(name_or_file: &str) -> Result<Self> {
        let text = text::named(["set of size phrases", "size phrases"], &SETS, name_or_file)?;
        let shown = Path::new(name_or_file).display();
        let phrases: Self = json::parse(text.as_bytes()).with_context(|| {
            let form = r#"{"far": ["a far away {}"], "near": ["zoomed in {}"]}"#;
            format!("the size phrases {shown} are not of the form {form}")
        })?;
        for phrase in phrases.far.iter().chain(&phrases.near) {
            ensure!(
                phrase.contains(GAP),
                "the size phrases {shown} have {:?}, which does not say where the prompt goes; write {GAP} there",
                terminal::shortened(phrase)
            );
        }
        Ok(phrases)
    }
}

/// A prompt with a size phrase: `a far away photo of a [V] dog`.
pub fn with_phrase(phrase: &str, prompt: &str) -> String {
    phrase.replace(GAP, prompt)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_phrases_are_those_of_the_golden() {
        let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/methods/custom_diffusion/augmentation.json");
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(cases).unwrap()).unwrap();
        let phrases = SizePhrases::load("custom-diffusion").unwrap();
        let with =
            |phrases: &[String]| -> Vec<String> { phrases.iter().map(|phrase| with_phrase(phrase, "")).collect() };
        let [far, near] = [with(&phrases.far), with(&phrases.near)];
        let mut seen = [false; 3];
        for case in &cases {
            for rules in ["official", "diffusers"] {
                let theirs: Vec<String> = serde_json::from_value(case[rules]["phrases"].clone()).unwrap();
                let which = [&far, &near, &Vec::new()].iter().position(|ours| **ours == theirs).unwrap();
                seen[which] = true;
            }
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(with_phrase(&phrases.far[0], "photo of a [V] dog"), "a far away photo of a [V] dog");
    }

    #[test]
    fn users_phrases_say_where_the_prompt_goes() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            let path = folder.path().join("mine.json");
            std::fs::write(&path, text).unwrap();
            SizePhrases::load(&path.display().to_string()).map_err(|error| format!("{error:#}"))
        };
        let phrases = load(r#"{"far": ["{}, ganz klein"], "near": []}"#).unwrap();
        assert_eq!(with_phrase(&phrases.far[0], "a [V]"), "a [V], ganz klein");
        let error = load(r#"{"far": ["small"], "near": []}"#).unwrap_err();
        assert!(error.contains("mine.json have \"small\"") && error.contains("write {} there"), "{error}");
        let error = load(r#"{"fra": []}"#).unwrap_err();
        assert!(error.contains("mine.json are not of the form {\"far\": ") && error.contains("fra"), "{error}");
        let error = SizePhrases::load("none").unwrap_err().to_string();
        assert!(error.contains("no set of size phrases") && error.ends_with("custom-diffusion, miniature"), "{error}");
    }
}
