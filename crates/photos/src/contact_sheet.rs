//! Augmented crops side by side.

use images::{Filter, Grid, resize};
use rayon::prelude::*;

use crate::crop::Crop;
use crate::folder::Photo;

/// Crops of photos, at most `side` pixels large, with the names of their files and what was done to them.
pub fn contact_sheet(crops: &[(&Photo, Crop)], columns: usize, side: u32) -> Grid {
    let cells: Vec<_> = crops
        .par_iter()
        .map(|(photo, crop)| {
            let image = crop.render(&photo.pixels);
            let is_smaller = side > 0 && side < crop.side();
            let image = if is_smaller { resize(&image, side, side, Filter::Bilinear) } else { image };
            (image, caption(photo, crop))
        })
        .collect();
    let mut grid = Grid::new(columns);
    for (image, caption) in cells {
        grid.push(image, caption);
    }
    grid
}

fn caption(photo: &Photo, crop: &Crop) -> String {
    format!("{}{}", photo.name(), crop.describe())
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;
    use crate::augmentation::AugmentedCrop;

    #[test]
    fn cells_say_what_was_done_and_are_no_larger_than_allowed() {
        let photo = Photo { path: "a/dog.jpg".into(), sha256: String::new(), pixels: RgbImage::new(40, 30) };
        let straight = AugmentedCrop { angle: None, flip: false, left: 0, top: 0, resolution: 60 };
        let rotated = AugmentedCrop { angle: Some(-12.4), flip: true, ..straight.clone() };
        let (straight, rotated) = (Crop::from(straight), Crop::from(rotated));
        assert_eq!(caption(&photo, &straight), "dog.jpg");
        assert_eq!(caption(&photo, &rotated), "dog.jpg -12\u{b0} mirrored");
        let crops = [(&photo, straight), (&photo, rotated)];
        // Gaps of 8 pixels between and around.
        assert_eq!(contact_sheet(&crops, 2, 24).draw().width(), 8 + 2 * (24 + 8));
        assert_eq!(contact_sheet(&crops, 2, 100).draw().width(), 8 + 2 * (60 + 8));
    }
}
