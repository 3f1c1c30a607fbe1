//! Shows what training would see of a folder of photos: the central square of each, and augmented crops.
//!
//! ```console
//! $ cargo run -p attndreambooth-photos --example contact_sheet                          # the photos in fixtures
//! $ cargo run -p attndreambooth-photos --example contact_sheet -- FOLDER OUT.png 256    # yours; cells of 256 pixels
//! ```

#![allow(clippy::print_stdout, reason = "it reports what it did")]

use std::path::{Path, PathBuf};

use anyhow::Result;
use photos::{Augmentation, PhotoFolder, contact_sheet};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let fixtures = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/photos/formats");
    let folder = arguments.first().map_or_else(fixtures, PathBuf::from);
    let out = arguments.get(1).map_or_else(|| std::env::temp_dir().join("contact_sheet.png"), PathBuf::from);
    let side = arguments.get(2).map_or(Ok(192), |side| side.parse())?;

    let opened = PhotoFolder::open(&folder)?;
    for note in &opened.notes {
        println!("note: {note}");
    }
    let random = Augmentation::default();
    let central = Augmentation::none(random.resolution);
    let mut crops = Vec::new();
    for (photo, first) in opened.photos.iter().zip((0..).step_by(4)) {
        let (width, height) = photo.pixels.dimensions();
        crops.push((photo, central.sample(0, width, height).into()));
        crops.extend((first..first + 4).map(|seed| (photo, random.sample(seed, width, height).into())));
    }
    images::save_png(&out, &contact_sheet(&crops, 5, side).draw(), &[])?;
    println!("{} photos, {} crops: {}", opened.photos.len(), crops.len(), out.display());
    Ok(())
}
