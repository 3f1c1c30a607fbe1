//! What a model is shown of a photo, however it was chosen.

use image::RgbImage;

use crate::augmentation::AugmentedCrop;
use crate::size_augmentation::PlacedPhoto;

/// An image made of a photo.
#[derive(Debug, Clone, PartialEq)]
pub enum Crop {
    /// A crop.
    Augmented(AugmentedCrop),
    /// The whole photo, small, large or as it is.
    Placed(PlacedPhoto),
}

impl Crop {
    /// The image, of [`Crop::size`].
    pub fn render(&self, photo: &RgbImage) -> RgbImage {
        match self {
            Self::Augmented(crop) => crop.render(photo),
            Self::Placed(placed) => placed.render(photo),
        }
    }

    /// The width and height of the image in pixels.
    pub fn size(&self) -> [u32; 2] {
        match self {
            Self::Augmented(crop) => [crop.width, crop.height],
            Self::Placed(placed) => [placed.side; 2],
        }
    }

    /// What was done to the photo, for a caption.
    pub(crate) fn describe(&self) -> String {
        let mirrored = |flip| if flip { " mirrored" } else { "" };
        match self {
            Self::Augmented(crop) => {
                let rotated = crop.angle.map_or(String::new(), |angle| format!(" {angle:+.0}\u{b0}"));
                format!("{rotated}{}", mirrored(crop.flip))
            }
            Self::Placed(placed) => mirrored(placed.flip).to_owned(),
        }
    }
}

impl From<AugmentedCrop> for Crop {
    fn from(crop: AugmentedCrop) -> Self {
        Self::Augmented(crop)
    }
}
