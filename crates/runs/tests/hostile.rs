//! Whatever is in a log: its lines or a sentence, never a panic, and never a line lost without a word.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

fn line(step: u64) -> String {
    format!("{{\"step\":{step},\"phase\":\"unet\",\"wall_time\":1.5,\"loss\":0.25}}\n")
}

proptest! {
    #[test]
    fn a_log_with_a_few_wrong_bytes(
        lines in 0..6_u64,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes: Vec<u8> = (1..=lines).flat_map(|step| line(step).into_bytes()).collect();
        for (place, byte) in &changes {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
        }
        if let Some(cut) = cut.filter(|_| !bytes.is_empty()) {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(folder.path().join("log.jsonl"), &bytes).unwrap();
        match runs::read_log(folder.path()) {
            Ok(entries) => prop_assert!(entries.len() as u64 <= lines + changes.len() as u64),
            Err(error) => assert!(format!("{error:#}").contains("log.jsonl")),
        }
    }
}
