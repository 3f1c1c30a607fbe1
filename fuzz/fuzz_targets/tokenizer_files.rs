//! A tokenizer's folder: the first byte chooses the file, the rest is its text; then a prompt is read by it.
#![no_main]

use libfuzzer_sys::fuzz_target;

const FILES: [&str; 5] =
    ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"];

fuzz_target!(|bytes: &[u8]| {
    let (Some((first, text)), Ok(folder)) = (bytes.split_first(), tempfile::tempdir()) else { return };
    let from = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/tiny-sd21/tokenizer"));
    for name in &FILES[..4] {
        let _ = std::fs::copy(from.join(name), folder.path().join(name));
    }
    let _ = std::fs::write(folder.path().join(FILES[usize::from(*first) % FILES.len()]), text);
    if let Ok(tokenizer) = tokenizer::Tokenizer::load(folder.path()) {
        let _ = tokenizer.encode("a photo of a cat, 3 × 4");
    }
});
