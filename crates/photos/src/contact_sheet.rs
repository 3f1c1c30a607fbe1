//! Augmented crops side by side.

use image::{GrayImage, RgbImage};
use images::{Filter, Grid, resize};
use rayon::prelude::*;

use crate::crop::Crop;
use crate::folder::Photo;

/// Crops of photos, at most `side` pixels wide and high, with the names of their files and what was done to them. What is outside
/// of a photo's mask is darkened.
pub fn contact_sheet(crops: &[(&Photo, Crop)], columns: usize, side: u32) -> Grid {
    let cells: Vec<_> = crops
        .par_iter()
        .map(|(photo, crop)| {
            let mut image = crop.render(&photo.pixels);
            if let Some(mask) = &photo.mask {
                darken(&mut image, &mask.render(crop));
            }
            (shrunk(image, side), caption(photo, crop))
        })
        .collect();
    let mut grid = Grid::new(columns);
    for (image, caption) in cells {
        grid.push(image, caption);
    }
    grid
}

/// The image, its longer side no longer than `side`, unless that is 0.
fn shrunk(image: RgbImage, side: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let longer = width.max(height);
    if side == 0 || side >= longer {
        return image;
    }
    let [width, height] = [width, height].map(|of| (u64::from(of) * u64::from(side) / u64::from(longer)).max(1) as u32);
    resize(&image, width, height, Filter::Bilinear)
}

/// Leaves a quarter of the light where the mask is black.
fn darken(image: &mut RgbImage, mask: &GrayImage) {
    for (pixel, mask) in image.pixels_mut().zip(mask.pixels()) {
        let light = 255 + 3 * u32::from(mask.0[0]);
        pixel.0 = pixel.0.map(|channel| (u32::from(channel) * light / (4 * 255)) as u8);
    }
}

fn caption(photo: &Photo, crop: &Crop) -> String {
    format!("{}{}", photo.name(), crop.describe())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augmentation::AugmentedCrop;

    #[test]
    fn cells_say_what_was_done_and_are_no_larger_than_allowed() {
        let photo = Photo::new("a/dog.jpg", RgbImage::new(40, 30));
        let straight = AugmentedCrop { angle: None, flip: false, left: 0, top: 0, width: 60, height: 60 };
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
