//! A run's log.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    if std::fs::write(folder.path().join("log.jsonl"), bytes).is_ok() {
        let _ = runs::read_log(folder.path());
    }
});
