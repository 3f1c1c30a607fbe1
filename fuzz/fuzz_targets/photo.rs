//! A photo of any format, with its orientation.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = tempfile::Builder::new().suffix(".jpg").tempfile() else { return };
    if std::fs::write(file.path(), bytes).is_ok() {
        let _ = photos::Photo::open(file.path(), &photos::Options::default());
    }
});
