//! Whatever bytes a photo has: pixels or a sentence, never a panic.

use photos::{Options, Photo};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_photo_with_a_few_wrong_bytes(
        format in prop::sample::select(vec!["jpg", "png", "tiff", "webp"]),
        orientation in 1..=8,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..6),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/photos/exif");
        let mut bytes = std::fs::read(fixtures.join(format!("{orientation}.{format}"))).unwrap();
        for (place, byte, early) in changes {
            // Sizes, formats and orientations stand at the beginning.
            let place = place.index(if early { bytes.len().min(128) } else { bytes.len() });
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("a.{format}"));
        std::fs::write(&path, bytes).unwrap();
        match Photo::open(&path, &Options::default()) {
            Ok(photo) => prop_assert!(photo.pixels.width() > 0 && photo.pixels.height() > 0),
            Err(rejected) => prop_assert!(!rejected.reason.is_empty() && !rejected.reason.contains('\n')),
        }
    }
}
