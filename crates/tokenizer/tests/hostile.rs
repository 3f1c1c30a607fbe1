//! Whatever is in a tokenizer's files: a tokenizer or a sentence, never a panic.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tokenizer::Tokenizer;

const FILES: [&str; 4] = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_folder_with_a_few_wrong_bytes(
        file in 0..FILES.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
        text in "\\PC{0,40}",
    ) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-sd21/tokenizer");
        let folder = tempfile::tempdir().unwrap();
        for name in FILES {
            fs::copy(from.join(name), folder.path().join(name)).unwrap();
        }
        let path = folder.path().join(FILES[file]);
        let mut bytes = fs::read(&path).unwrap();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&path, bytes).unwrap();
        match Tokenizer::load(folder.path()) {
            Ok(tokenizer) => {
                if let Ok(encoding) = tokenizer.encode(&text) {
                    prop_assert!(encoding.ids.len() == tokenizer.max_length() && encoding.len <= encoding.ids.len());
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
