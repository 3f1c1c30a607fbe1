//! A scene as a picture.

use image::imageops::{self, FilterType};
use image::{Rgb, Rgb32FImage, RgbImage, Rgba, Rgba32FImage};

use crate::draws::Draws;
use crate::{Album, Background, Object, Scene, World, background, style};

impl Scene {
    /// Paints the scene on a square canvas. A drawing that the album lacks is left out.
    pub fn render(&self, world: &World, album: &Album, side: u32) -> RgbImage {
        let mut draws = Draws::new(self.seed);
        let mut canvas = background::paint(&self.background, world, &mut draws, side);
        let grounded = matches!(&self.background, Background::Place(place) if background::has_ground(place));
        let alone = self.objects.len() == 1;
        for (turn, object) in self.objects.iter().enumerate() {
            let size = if alone { draws.range(0.6, 0.82) } else { draws.range(0.44, 0.52) };
            let middle = match (alone, turn) {
                (true, _) => 0.5 + draws.range(-0.07, 0.07),
                (false, 0) => 0.26 + draws.range(-0.02, 0.02),
                (false, _) => 0.74 + draws.range(-0.02, 0.02),
            };
            let height = if grounded { draws.range(0.86, 0.94) - size / 2.0 } else { 0.5 + draws.range(-0.06, 0.06) };
            let mirrored = draws.chance(0.5);
            if let Some(drawing) = album.get(&object.picture) {
                place(&mut canvas, &dressed(drawing, object, world), (middle, height), size, mirrored);
            }
        }
        if let Some(style) = &self.style {
            canvas = style::apply(style, &canvas);
        }
        RgbImage::from_fn(side, side, |x, y| {
            Rgb(canvas.get_pixel(x, y).0.map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8))
        })
    }
}

/// The drawing in the object's colour: black, the colour and white, by how bright the drawing is.
fn dressed(drawing: &Rgba32FImage, object: &Object, world: &World) -> Rgba32FImage {
    let mut drawing = drawing.clone();
    let Some(color) = object.color.as_ref().and_then(|color| world.colors.get(color)) else { return drawing };
    let color = color.map(|v| f32::from(v) / 255.0);
    for Rgba([r, g, b, a]) in drawing.pixels_mut() {
        let luminance = (0.299 * *r + 0.587 * *g + 0.114 * *b) / a.max(1e-3);
        let tone = |c: f32| {
            let dark = c * (0.35 + 1.1 * luminance).min(1.0);
            dark + (1.0 - dark) * (1.4 * (luminance - 0.65)).clamp(0.0, 0.5)
        };
        (*r, *g, *b) = (tone(color[0]) * *a, tone(color[1]) * *a, tone(color[2]) * *a);
    }
    drawing
}

/// Lays a drawing over the canvas; position of its middle and size in parts of the canvas.
fn place(canvas: &mut Rgb32FImage, drawing: &Rgba32FImage, middle: (f32, f32), size: f32, mirrored: bool) {
    let side = canvas.width() as f32;
    let pixels = ((size * side).round() as u32).max(1);
    let mut drawing = imageops::resize(drawing, pixels, pixels, FilterType::Triangle);
    if mirrored {
        imageops::flip_horizontal_in_place(&mut drawing);
    }
    let corner = |part: f32| (part * side - pixels as f32 / 2.0).round() as i64;
    let (left, top) = (corner(middle.0), corner(middle.1));
    for (x, y, Rgba([r, g, b, a])) in drawing.enumerate_pixels() {
        let (x, y) = (left + i64::from(x), top + i64::from(y));
        let inside = |v: i64| (0..i64::from(canvas.width())).contains(&v);
        if inside(x) && inside(y) {
            let Rgb(under) = canvas.get_pixel_mut(x as u32, y as u32);
            *under = [r + under[0] * (1.0 - a), g + under[1] * (1.0 - a), b + under[2] * (1.0 - a)];
        }
    }
}
