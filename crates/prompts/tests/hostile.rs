//! Whatever is in a file of prompts: prompts or a sentence, never a panic.
#![allow(clippy::unwrap_used)]

use prompts::{PromptSet, SizePhrases, TemplateSet};
use proptest::prelude::*;

/// The set, if it is one; else a sentence has said why not.
fn read(name: &str, bytes: &[u8]) -> Option<PromptSet> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let said = |error: &anyhow::Error| {
        let error = format!("{error:#}");
        assert!(error.contains(name) && error.len() < 2000, "{error}");
    };
    PromptSet::from_file(&path).inspect_err(said).ok()
}

proptest! {
    #[test]
    fn any_lines(text in "([a-z ]{0,12}(\\{\\}|#|\u{feff}|\u{0}|\r)?[a-z ]{0,12}\n?){1,8}") {
        if let Some(set) = read("a.txt", text.as_bytes()) {
            let gap = "{}";
            let filled = |prompt: &prompts::Prompt| prompt.text.contains(gap) && !prompt.with("x").contains(gap);
            prop_assert!(!set.prompts.is_empty() && set.prompts.iter().all(filled));
        }
    }

    #[test]
    fn a_set_with_a_few_wrong_bytes(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)) {
        let mut bytes = br#"{"name": "two", "prompts": [{"text": "a {}", "kind": "photo"}, {"text": "a red {}"}]}"#.to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(set) = read("a.json", &bytes) {
            prop_assert!(!set.prompts.is_empty() && !set.name.contains('/'));
        }
    }

    #[test]
    fn any_templates(text in "([a-z ]{0,12}(\\[V\\]|\\{\\}|#|\u{feff}|\u{0}|\r)?[a-z ]{0,12}\n?){1,8}") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, &text).unwrap();
        match TemplateSet::from_file(&path) {
            Ok(set) => prop_assert!(!set.prompts.is_empty() && set.prompts.iter().all(|prompt| prompt.contains("[V]"))),
            Err(error) => {
                let said = format!("{error:#}");
                prop_assert!(said.contains("a.txt"), "{}", said);
            }
        }
    }

    #[test]
    fn size_phrases_with_a_few_wrong_bytes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = br#"{"far": ["a far away {}"], "near": ["zoomed in {}"]}"#.to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, bytes).unwrap();
        let gap = "{}";
        match SizePhrases::load(path.to_str().unwrap()) {
            Ok(phrases) => prop_assert!(phrases.far.iter().chain(&phrases.near).all(|phrase| phrase.contains(gap))),
            Err(error) => {
                let said = format!("{error:#}");
                prop_assert!(said.contains("a.json"), "{}", said);
            }
        }
    }
}
