//! Custom Diffusion's augmentation: a photo shown small, large or whole, with a mask of where it is.

use image::{Rgb, RgbImage, imageops};
use images::{Filter, resize_part};
use serde::{Deserialize, Serialize};

use crate::error::InvalidAugmentation;
use crate::unit::Unit;

/// Whose rules; they differ in photos of 0.6 of the image's side and more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum SizeRules {
    /// The authors' code: such photos fill the image; sides are even.
    #[default]
    Official,
    /// diffusers' `train_custom_diffusion.py`: they are pasted as smaller ones are.
    Diffusers,
}

/// How Custom Diffusion augments photos (arXiv 2212.04488, section 3.1): each is squashed to a square that is smaller
/// or larger than the image, and pasted onto grey or cropped.
///
/// Resolution and mirroring are [`Augmentation`](crate::Augmentation)'s, of which nothing else is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct SizeAugmentation {
    /// The authors' rules or diffusers'.
    pub rules: SizeRules,
    /// Probability of a photo no larger than the image; diffusers has 0.66.
    pub shrink_p: f64,
    /// The smallest photo's side as a share of the image's.
    pub smallest: f64,
    /// The largest photo's side as a share of the image's; enlarged ones have at least 1.2 of it.
    pub largest: f64,
}

impl Default for SizeAugmentation {
    fn default() -> Self {
        Self { rules: SizeRules::Official, shrink_p: 2.0 / 3.0, smallest: 1.0 / 3.0, largest: 1.4 }
    }
}

/// A photo with a smaller side than this share of the image's is small.
const FAR: f64 = 0.6;
/// The side of the smallest enlarged photo.
const NEAR: f64 = 1.2;
/// Pixels around a small photo: 0 in [-1, 1] lies between 127 and 128.
const GREY: Rgb<u8> = Rgb([128; 3]);
/// Draws whose mask is empty, after which a photo is shown whole.
const MOST_DRAWS: usize = 100;

impl SizeAugmentation {
    /// Checks what a user may have written.
    ///
    /// # Errors
    /// When the probability is not in 0..=1, or a share is out of range; the error names key and value.
    pub fn validate(&self) -> Result<(), InvalidAugmentation> {
        InvalidAugmentation::check("shrink_p", self.shrink_p, 0.0..=1.0)?;
        InvalidAugmentation::check("smallest", self.smallest, 0.01..=1.0)?;
        InvalidAugmentation::check("largest", self.largest, NEAR..=10.0)
    }

    /// Samples where a photo stands in an image of `side` pixels, of which the mask has `mask_side` cells, mirrored
    /// with probability `flip_p`. The same seed gives the same place on every machine and in every version.
    ///
    /// In an image of few cells a small photo's mask may have none; such a place is drawn anew, since a loss over
    /// nothing is no number.
    pub fn sample(&self, seed: u64, side: u32, mask_side: u32, flip_p: f64) -> PlacedPhoto {
        let mut unit = Unit::new(seed);
        let flip = unit.next() < flip_p;
        let share = |of: f64| (of * f64::from(side)) as u32;
        let mut draw = || {
            let (first, last) = match unit.next() < self.shrink_p {
                true => (share(self.smallest), side),
                false => (share(NEAR), share(self.largest).saturating_sub(1)),
            };
            let scale = self.rules.side(unit.integer(first.max(1), last));
            let room = side.abs_diff(scale);
            let (top, left) = (unit.integer(0, room), unit.integer(0, room));
            self.rules.place(side, scale, top, left)
        };
        let place = (0..MOST_DRAWS).map(|_| draw()).find(|place| !place.mask_region(mask_side).is_empty());
        PlacedPhoto { flip, ..place.unwrap_or(PlacedPhoto { side, flip, scale: side, place: Place::Whole }) }
    }
}

impl SizeRules {
    /// The side of a photo for which `side` was drawn.
    fn side(self, side: u32) -> u32 {
        match self {
            Self::Official => side.next_multiple_of(2),
            Self::Diffusers => side,
        }
    }

    /// Where a photo of `scale` pixels stands in an image of `side` pixels, with its upper left corner, or that of the
    /// crop, at `top` and `left` in 0..=|side - scale|.
    pub fn place(self, side: u32, scale: u32, top: u32, left: u32) -> PlacedPhoto {
        let scale = self.side(scale);
        let place = if scale > side {
            Place::Cropped { top, left }
        } else if self == Self::Official && f64::from(scale) >= FAR * f64::from(side) {
            Place::Whole
        } else {
            Place::Pasted { top, left }
        };
        PlacedPhoto { side, flip: false, scale, place }
    }
}

/// A photo within an image, as one training step sees it: the random choices, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlacedPhoto {
    /// Side of the image in pixels.
    pub side: u32,
    /// Mirrored left to right.
    pub flip: bool,
    /// Side in pixels of the square to which the photo is squashed; nothing where it is shown whole.
    pub scale: u32,
    /// Where it stands.
    pub place: Place,
}

/// Where a photo stands in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// It fills the image.
    Whole,
    /// Its upper left corner is here in the image, with grey around it.
    #[allow(missing_docs, reason = "pixels")]
    Pasted { top: u32, left: u32 },
    /// The image's upper left corner is here in the photo.
    #[allow(missing_docs, reason = "pixels")]
    Cropped { top: u32, left: u32 },
}

/// How large the subject looks, which the prompt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApparentSize {
    /// Small: "a far away ...".
    Far,
    /// As in the photo, of which the prompt says nothing.
    Usual,
    /// Large: "zoomed in ...".
    Near,
}

/// A rectangle of pixels or cells; `bottom` and `right` are the first outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "its sides")]
pub struct Region {
    pub top: u32,
    pub left: u32,
    pub bottom: u32,
    pub right: u32,
}

impl Region {
    fn square(top: u32, left: u32, side: u32) -> Self {
        Self { top, left, bottom: top + side, right: left + side }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bottom <= self.top || self.right <= self.left
    }
}

impl PlacedPhoto {
    /// How large the subject looks.
    pub fn apparent_size(&self) -> ApparentSize {
        match self.place {
            Place::Cropped { .. } => ApparentSize::Near,
            Place::Pasted { .. } if f64::from(self.scale) < FAR * f64::from(self.side) => ApparentSize::Far,
            _ => ApparentSize::Usual,
        }
    }

    /// Where the photo is in the image, in pixels; around it a model is to see 0 in [-1, 1].
    pub fn region(&self) -> Region {
        match self.place {
            Place::Pasted { top, left } => Region::square(top, left, self.scale),
            _ => Region::square(0, 0, self.side),
        }
    }

    /// The cells in which the loss counts, of a square mask of `side` cells: one cell inside of a pasted photo's
    /// border, else all.
    pub fn mask_region(&self, side: u32) -> Region {
        let Place::Pasted { top, left } = self.place else { return Region::square(0, 0, side) };
        let cell = (self.side / side.max(1)).max(1);
        let [bottom, right] = [top, left].map(|start| ((start + self.scale) / cell).saturating_sub(1));
        Region { top: top / cell + 1, left: left / cell + 1, bottom, right }
    }

    /// The mask of `side` x `side` cells, row by row: 1 in the [`mask_region`](Self::mask_region), 0 around it.
    pub fn mask(&self, side: u32) -> Vec<u8> {
        let region = self.mask_region(side);
        let (rows, columns) = (region.top..region.bottom, region.left..region.right);
        (0..side)
            .flat_map(|y| (0..side).map(move |x| (y, x)))
            .map(|(y, x)| u8::from(rows.contains(&y) && columns.contains(&x)))
            .collect()
    }

    /// Renders the image of `side` x `side` pixels: the photo squashed to a square, bilinearly as Pillow does it, then
    /// mirrored, then pasted onto grey (128) or cropped.
    pub fn render(&self, photo: &RgbImage) -> RgbImage {
        let mut image = RgbImage::from_pixel(self.side, self.side, GREY);
        if photo.is_empty() || self.side == 0 || self.scale == 0 {
            return image;
        }
        let (side, scale) = (u64::from(self.side), u64::from(self.scale));
        let resized = |size: u64, x: u64, y: u64, shown: u64| {
            // A crop of the mirrored photo is the mirrored crop from the other side.
            let x = if self.flip { size - shown - x } else { x };
            let mut part = resize_part(photo, None, Filter::Bilinear, (size, size), x..x + shown, y..y + shown);
            if self.flip {
                imageops::flip_horizontal_in_place(&mut part);
            }
            part
        };
        match self.place {
            Place::Whole => resized(side, 0, 0, side),
            Place::Pasted { top, left } => {
                imageops::replace(&mut image, &resized(scale, 0, 0, scale), left.into(), top.into());
                image
            }
            Place::Cropped { top, left } => {
                let room = scale.saturating_sub(side);
                resized(scale.max(side), room.min(left.into()), room.min(top.into()), side)
            }
        }
    }
}
