//! The reference photo of a run whose model looks at one: the first photo, whose central square the run keeps.

use std::path::Path;

use anyhow::Result;
use images::{Grid, RgbImage};
use photos::{Options, Photo};
use runs::{TrainConfig, layout};
use sampling::{Pipeline, ReferenceMask};

/// Timesteps at which the masks are shown.
const TIMESTEPS: [i64; 3] = [100, 500, 900];
/// How much of the brightness is left where the subject is not.
const DIMMED: f32 = 0.2;
/// Side of a tile in pixels.
const TILE: u32 = 192;

/// As large as the model's own images, whatever size the photos have in training: `generate --reference` knows no other.
fn side(pipeline: &Pipeline) -> Result<u32> {
    Ok(u32::try_from(pipeline.default_settings().height)?)
}

/// Gives a pipeline its reference, if it looks at one.
pub(crate) fn give(pipeline: &mut Pipeline, photos: &[Photo]) -> Result<()> {
    match photos.first().filter(|_| pipeline.looks_at_a_reference()) {
        Some(photo) => pipeline.set_reference(&photo.square(side(pipeline)?)),
        None => Ok(()),
    }
}

/// Writes the run's copy, if its model looks at one.
pub(crate) fn keep(pipeline: &Pipeline, photos: &[Photo], run: &Path) -> Result<()> {
    let path = run.join(layout::REFERENCE);
    match photos.first().filter(|_| pipeline.looks_at_a_reference() && !path.exists()) {
        Some(photo) => images::save_png(&path, &photo.square(side(pipeline)?), &[]),
        None => Ok(()),
    }
}

/// Gives a pipeline the run's copy, if it looks at one; none where the copy is gone, which who generates images is told.
pub(crate) fn restore(pipeline: &mut Pipeline, run: &Path) -> Result<()> {
    let path = run.join(layout::REFERENCE);
    if !pipeline.looks_at_a_reference() || !path.exists() {
        return Ok(());
    }
    pipeline.set_reference(&Photo::open(&path, &Options::default())?.pixels)
}

/// Writes where the reference shows the subject, if the model looks at one: a column for each place, a row for each timestep.
pub(crate) fn draw_masks(pipeline: &Pipeline, config: &TrainConfig, run: &Path) -> Result<()> {
    let path = run.join(layout::REFERENCE);
    if !pipeline.looks_at_a_reference() || !path.exists() {
        return Ok(());
    }
    let photo = Photo::open(&path, &Options::default())?.pixels;
    let mut grid = Grid::new(0);
    for (row, timestep) in TIMESTEPS.into_iter().enumerate() {
        let masks = pipeline.reference_masks(&config.fill(&config.prompt), timestep)?;
        if row == 0 {
            grid = Grid::new(masks.len());
        }
        for mask in &masks {
            grid.push(masked(&photo, mask), format!("{}x{}, timestep {timestep}", mask.width, mask.height));
        }
    }
    images::save_png(&run.join(layout::REFERENCE_MASK), &grid.draw(), &[])
}

/// The photo, dimmed where the mask has nothing of the subject.
fn masked(photo: &RgbImage, mask: &ReferenceMask) -> RgbImage {
    let mut tile = images::resize(photo, TILE, TILE, images::Filter::Bilinear);
    for (x, y, pixel) in tile.enumerate_pixels_mut() {
        let (column, row) = (x * mask.width / TILE, y * mask.height / TILE);
        if !mask.subject[(row * mask.width + column) as usize] {
            pixel.0 = pixel.0.map(|value| (f32::from(value) * DIMMED) as u8);
        }
    }
    tile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_subject_is_dimmed() {
        let photo = RgbImage::from_pixel(64, 64, [200, 100, 50].into());
        let mask = ReferenceMask { place: String::new(), height: 2, width: 2, subject: vec![true, false, false, true] };
        let tile = masked(&photo, &mask);
        let at = |x, y| tile.get_pixel(x, y).0;
        assert_eq!((at(0, 0), at(TILE - 1, TILE - 1)), ([200, 100, 50], [200, 100, 50]));
        assert_eq!((at(TILE - 1, 0), at(TILE / 2 - 1, TILE / 2)), ([40, 20, 10], [40, 20, 10]));
    }
}
