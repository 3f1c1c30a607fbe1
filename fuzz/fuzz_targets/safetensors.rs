//! Weights: the header, and every tensor that it promises.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = tempfile::Builder::new().suffix(".safetensors").tempfile() else { return };
    if std::fs::write(file.path(), bytes).is_ok()
        && let Ok(archive) = weights::Archive::open(file.path())
    {
        let _ = archive.tensors();
    }
});
