//! Whatever bytes a PNG has: texts or a sentence, never a panic.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

proptest! {
    #[test]
    fn an_image_with_a_few_wrong_bytes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let image = image::RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 50, y as u8 * 80, 7]));
        images::save_png(&path, &image, &[("parameters", "a cat"), ("Title", "ein Kätzchen 🐱")]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        for (place, byte) in &changes {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = images::png_texts(&path) {
            prop_assert!(error.to_string().contains("a.png"));
        }
    }
}
