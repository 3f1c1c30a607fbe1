//! Augmented crops of a photo: sampled first, rendered later.

use image::RgbImage;
use images::{Filter, Rotation, resize_part};
use serde::{Deserialize, Serialize};

use crate::error::InvalidAugmentation;
use crate::unit::Unit;

/// How photos are augmented for training; the default is that of the code of AttnDreamBooth's authors (their paper does
/// not mention it).
///
/// In this order: rotation, resize of the shorter side to `resolution`, mirroring, crop to a square; or, for a crop that is none
/// ([`Augmentation::sample_shape`]), resize until the photo covers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Augmentation {
    /// Rotations are uniform in ±this many degrees; corners become black.
    pub rotation_degrees: f32,
    /// Probability of a rotation; 0 switches it off.
    pub rotation_p: f64,
    /// Probability of mirroring left to right; 0 switches it off.
    pub flip_p: f64,
    /// Crop a random square of the resized photo rather than the central one.
    pub random_crop: bool,
    /// Side of a crop in pixels.
    pub resolution: u32,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { rotation_degrees: 45.0, rotation_p: 0.75, flip_p: 0.25, random_crop: true, resolution: 512 }
    }
}

impl Augmentation {
    /// No augmentation: the central square of the resized photo, the same for every seed.
    pub fn none(resolution: u32) -> Self {
        Self { rotation_p: 0.0, flip_p: 0.0, random_crop: false, resolution, ..Self::default() }
    }

    /// Checks what a user may have written.
    ///
    /// # Errors
    /// When a probability is not in 0..=1, the rotation not in 0..=180 degrees, or the resolution not in 1..=16384;
    /// the error names key and value.
    pub fn validate(&self) -> Result<(), InvalidAugmentation> {
        let check = InvalidAugmentation::check;
        check("rotation_degrees", f64::from(self.rotation_degrees), 0.0..=180.0)?;
        check("rotation_p", self.rotation_p, 0.0..=1.0)?;
        check("flip_p", self.flip_p, 0.0..=1.0)?;
        check("resolution", f64::from(self.resolution), 1.0..=16384.0)
    }

    /// Samples a crop of a photo of this size. The same seed gives the same crop on every machine and in every version.
    ///
    /// The seed, in the first 8 bytes of the key (little-endian), sets a ChaCha8 generator; neighbouring seeds are as
    /// independent as any. Of its 64-bit outputs the upper 53 bits, divided by 2^53, decide in this order: rotate?
    /// angle, mirror? left edge, top edge. All five are always sampled, so switching one step off leaves the others as they
    /// are.
    pub fn sample(&self, seed: u64, width: u32, height: u32) -> AugmentedCrop {
        self.sample_shape(seed, width, height, [self.resolution; 2])
    }

    /// The same with a crop of another width and height in pixels.
    pub fn sample_shape(&self, seed: u64, width: u32, height: u32, shape: [u32; 2]) -> AugmentedCrop {
        let mut generator = Unit::new(seed);
        let mut unit = || generator.next();

        let rotated = unit() < self.rotation_p;
        let angle = ((2.0 * unit() - 1.0) * f64::from(self.rotation_degrees)) as f32;
        let flip = unit() < self.flip_p;
        let (left, top) = (unit(), unit());

        let [crop_width, crop_height] = shape;
        let angle = rotated.then_some(angle);
        let mut crop = AugmentedCrop { angle, flip, left: 0, top: 0, width: crop_width, height: crop_height };
        let (width, height) = crop.resized(width, height);
        let offset = |extent: u64, side: u32, unit: f64| {
            let room = extent.saturating_sub(side.into());
            if self.random_crop { (unit * (room + 1) as f64) as u64 } else { central(room) }
        };
        (crop.left, crop.top) = (offset(width, crop_width, left), offset(height, crop_height, top));
        crop
    }
}

/// Half of the room, ties to the even neighbour, as torchvision's `center_crop`.
fn central(room: u64) -> u64 {
    (room / 2).next_multiple_of(if room % 2 == 1 { 2 } else { 1 })
}

/// A photo as one training step sees it: the random choices, in numbers.
///
/// It belongs to photos of the size it was sampled for; for others the crop is moved inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AugmentedCrop {
    /// Degrees counter-clockwise; none leaves the photo as it is.
    pub angle: Option<f32>,
    /// Mirrored left to right, after the rotation.
    pub flip: bool,
    /// Left edge of the crop in the resized and mirrored photo, in pixels.
    pub left: u64,
    /// Upper edge of the crop, likewise.
    pub top: u64,
    /// Width of the crop in pixels; the resized photo just covers it.
    pub width: u32,
    /// Height of the crop.
    pub height: u32,
}

impl AugmentedCrop {
    /// Renders the crop of `photo`: `width` x `height` pixels.
    ///
    /// The pixels are those of torchvision's `rotate(expand=True)`, `resize`, `hflip` and `crop` on Pillow images,
    /// bit by bit. Neither the rotated nor the resized photo is ever held: rows are rotated as the resize needs them,
    /// and only as much as the crop shows. Photos smaller than the crop are enlarged.
    pub fn render(&self, photo: &RgbImage) -> RgbImage {
        let (shown_width, shown_height) = (u64::from(self.width), u64::from(self.height));
        if shown_width == 0 || shown_height == 0 || photo.is_empty() {
            return RgbImage::new(self.width, self.height);
        }
        let rotation = self.rotation(photo.width(), photo.height());
        let (width, height) = rotation.as_ref().map_or(photo.dimensions(), |r| (r.width, r.height));
        let (resized_width, resized_height) = self.covering(width, height);
        let (room, top) = (resized_width - shown_width, self.top.min(resized_height - shown_height));
        // A crop of the mirrored photo is the mirrored crop from the other side.
        let left = self.left.min(room);
        let left = if self.flip { room - left } else { left };

        let (x, y) = (left..left + shown_width, top..top + shown_height);
        let mut crop = resize_part(photo, rotation.as_ref(), Filter::Bilinear, (resized_width, resized_height), x, y);
        if self.flip {
            image::imageops::flip_horizontal_in_place(&mut crop);
        }
        crop
    }

    fn rotation(&self, width: u32, height: u32) -> Option<Rotation> {
        self.angle.filter(|angle| angle.is_finite()).map(|angle| Rotation::new(f64::from(angle), width, height))
    }

    /// Size of the photo after rotation and resize.
    fn resized(&self, width: u32, height: u32) -> (u64, u64) {
        let (width, height) = (width.max(1), height.max(1));
        let (width, height) = self.rotation(width, height).map_or((width, height), |r| (r.width, r.height));
        self.covering(width, height)
    }

    /// The least size of an image that covers the crop and keeps its aspect ratio, the other side rounded down: for a square
    /// crop torchvision's resize of the shorter side.
    fn covering(&self, width: u32, height: u32) -> (u64, u64) {
        let [width, height] = [width, height].map(u64::from);
        let [crop_width, crop_height] = [self.width, self.height].map(u64::from);
        match width * crop_height <= height * crop_width {
            true => (crop_width, crop_width * height / width),
            false => (crop_height * width / height, crop_height),
        }
    }
}
