//! The drawings, ready to be placed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use image::imageops::{self, FilterType};
use image::{Rgba, Rgba32FImage, RgbaImage};
use rayon::prelude::*;

use crate::World;

/// Drawings are kept at this size, which is that of the largest on a canvas of 128 pixels.
const SIDE: u32 = 112;

/// All drawings of a world, with colours multiplied by alpha.
#[derive(Debug)]
pub struct Album(BTreeMap<String, Rgba32FImage>);

impl Album {
    /// Reads `NAME.webp` for each drawing of the world, nouns' and subjects'.
    ///
    /// # Errors
    /// Names the first file that cannot be read.
    pub fn open(world: &World, folder: &Path) -> Result<Self> {
        let names: Vec<&String> = names(world).collect();
        let read = |name: &&String| -> Result<(String, Rgba32FImage)> {
            let path = folder.join(format!("{name}.webp"));
            let image = image::open(&path).with_context(|| format!("cannot read the drawing {}", path.display()))?;
            Ok(((*name).clone(), prepared(image.into_rgba32f(), SIDE)))
        };
        Ok(Self(names.par_iter().map(read).collect::<Result<_>>()?))
    }

    /// A disc for each drawing, to try things out without the drawings.
    pub fn placeholder(world: &World) -> Self {
        let disc = |name: &String| {
            let shade = f32::from(name.bytes().fold(0u8, u8::wrapping_add)) / 255.0;
            let image = Rgba32FImage::from_fn(SIDE, SIDE, |x, y| {
                let middle = SIDE as f32 / 2.0;
                let inside = (x as f32 - middle).hypot(y as f32 - middle) < 0.9 * middle;
                if inside { Rgba([shade, 0.5, 1.0 - shade, 1.0]) } else { Rgba([0.0; 4]) }
            });
            (name.clone(), image)
        };
        Self(names(world).map(disc).collect())
    }

    /// Drawings at hand, by name, kept as large as they are.
    pub fn of(drawings: impl IntoIterator<Item = (String, RgbaImage)>) -> Self {
        let each = drawings.into_iter().map(|(name, drawing)| {
            let side = drawing.width().max(drawing.height());
            (name, prepared(image::DynamicImage::from(drawing).into_rgba32f(), side))
        });
        Self(each.collect())
    }

    /// With further drawings, scaled as those of [`Album::open`]; one of a name that is there replaces it.
    #[must_use]
    pub fn with(mut self, drawings: impl IntoIterator<Item = (String, RgbaImage)>) -> Self {
        let scaled = |drawing: RgbaImage| prepared(image::DynamicImage::from(drawing).into_rgba32f(), SIDE);
        self.0.extend(drawings.into_iter().map(|(name, drawing)| (name, scaled(drawing))));
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Rgba32FImage> {
        self.0.get(name)
    }
}

/// Colours multiplied by alpha, so that scaling mixes them rightly.
fn prepared(mut image: Rgba32FImage, side: u32) -> Rgba32FImage {
    for Rgba([r, g, b, a]) in image.pixels_mut() {
        (*r, *g, *b) = (*r * *a, *g * *a, *b * *a);
    }
    imageops::resize(&image, side, side, FilterType::Triangle)
}

fn names(world: &World) -> impl Iterator<Item = &String> {
    let nouns = world.nouns.iter().flat_map(|noun| &noun.drawings);
    nouns.chain(world.subjects.iter().flat_map(|subject| &subject.drawings))
}
