//! A file of prompts; the first byte chooses between JSON and lines.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, text)) = bytes.split_first() else { return };
    let suffix = if first % 2 == 0 { ".json" } else { ".txt" };
    let Ok(file) = tempfile::Builder::new().suffix(suffix).tempfile() else { return };
    if std::fs::write(file.path(), text).is_ok() {
        let _ = prompts::PromptSet::from_file(file.path());
    }
});
