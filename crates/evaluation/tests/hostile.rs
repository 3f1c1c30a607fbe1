//! Whatever is in a file of prompts: prompts or a sentence, never a panic.
#![allow(clippy::unwrap_used)]

use evaluation::PromptSet;
use proptest::prelude::*;

fn read(name: &str, bytes: &[u8]) -> Result<PromptSet, TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    PromptSet::from_file(&path).map_err(|error| {
        let error = format!("{error:#}");
        assert!(error.contains(name) && error.len() < 2000, "{error}");
        TestCaseError::reject("refused in a sentence")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn any_lines(text in "([a-z ]{0,12}(\\{\\}|#|\u{feff}|\u{0}|\r)?[a-z ]{0,12}\n?){1,8}") {
        let set = read("a.txt", text.as_bytes())?;
        prop_assert!(set.prompts.iter().all(|prompt| prompt.text.contains("{}") && !prompt.with("x").contains("{}")));
    }

    #[test]
    fn a_set_with_a_few_wrong_bytes(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)) {
        let mut bytes = br#"{"name": "two", "prompts": [{"text": "a {}", "kind": "photo"}, {"text": "a red {}"}]}"#.to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let set = read("a.json", &bytes)?;
        prop_assert!(!set.prompts.is_empty() && !set.name.contains('/'));
    }
}
