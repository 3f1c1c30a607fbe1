//! Every folder of photos that the repository carries; and those of `PHOTOS`, a folder of folders such as the DreamBooth
//! data set, by `PHOTOS=FOLDER cargo test -p attndreambooth-photos --test real -- --ignored`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use photos::{Augmentation, PhotoFolder, contact_sheet};
use rayon::prelude::*;

#[test]
fn every_subject_opens_and_every_crop_shows_it() {
    let seen = look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/subjects"));
    assert!(seen >= 6);
}

#[test]
#[ignore = "needs PHOTOS, a folder of folders of photos"]
fn every_folder_of_photos_opens_and_every_crop_shows_it() {
    let folder = std::env::var_os("PHOTOS").expect("PHOTOS names a folder of folders of photos");
    assert!(look(Path::new(&folder)) > 0);
}

/// Opens every folder in `parent`, and returns how many there are.
fn look(parent: &Path) -> usize {
    let entries = fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    let count = folders.len();
    let augmentation = Augmentation { resolution: 128, ..Augmentation::default() };
    for folder in folders {
        let opened = PhotoFolder::open(&folder).unwrap();
        assert!(opened.skipped.is_empty(), "{:?}", opened.skipped);
        let photos = &opened.photos;
        let sample = |photo: usize, seed| {
            let (width, height) = photos[photo].pixels.dimensions();
            (&photos[photo], augmentation.sample(seed, width, height))
        };
        let sampled: Vec<_> = (0..24).map(|seed| sample(seed as usize % photos.len(), seed)).collect();
        // In whatever thread, in whatever order.
        let parallel: Vec<_> = sampled.par_iter().map(|(photo, crop)| crop.render(&photo.pixels)).collect();
        for ((photo, crop), rendered) in sampled.iter().zip(&parallel) {
            assert_eq!(*rendered, crop.render(&photo.pixels));
            assert_eq!(rendered.dimensions(), (128, 128));
            let black = rendered.pixels().filter(|pixel| pixel.0 == [0; 3]).count();
            // Rotated by 45 degrees, half of a square canvas is black, and of a wide one a little more.
            assert!(black < 128 * 128 * 3 / 4, "{} {crop:?}: {black}", photo.path.display());
        }
        let crops: Vec<_> = sampled.iter().map(|(photo, crop)| (*photo, crop.clone().into())).collect();
        let sheet = contact_sheet(&crops, 6, 64).draw();
        assert_eq!(sheet.width(), 6 * (64 + 8) + 8);
    }
    count
}
