//! A scene as an image.

use image::imageops::{self, FilterType};
use image::{Rgb, Rgb32FImage, RgbImage, Rgba, Rgba32FImage};

use crate::rng::Rng;
use crate::{Album, Background, Object, Placement, Scene, World, background, style};

/// How far sizes and places go, in parts of the canvas.
struct Room {
    /// The size of a thing that is alone.
    size: (f32, f32),
    /// To the left and right of where it belongs.
    aside: f32,
    /// Where it stands, from above.
    ground: (f32, f32),
    /// Up and down, where there is no ground.
    aloft: f32,
    /// The probability that it looks the other way.
    mirrored: f32,
}

impl Placement {
    fn room(self) -> Room {
        match self {
            Self::Steady => Room { size: (0.78, 0.84), aside: 0.02, ground: (0.9, 0.93), aloft: 0.02, mirrored: 0.0 },
            Self::Free => Room { size: (0.6, 0.82), aside: 0.07, ground: (0.86, 0.94), aloft: 0.06, mirrored: 0.5 },
        }
    }
}

impl Scene {
    /// Paints the scene on a square canvas. A drawing that the album lacks is left out.
    pub fn render(&self, world: &World, album: &Album, side: u32) -> RgbImage {
        let mut rng = Rng::new(self.seed);
        let mut canvas = background::paint(&self.background, world, &mut rng, side);
        let grounded = matches!(&self.background, Background::Place(place) if background::has_ground(place));
        let (alone, room) = (self.objects.len() == 1, self.placement.room());
        for (turn, object) in self.objects.iter().enumerate() {
            let shared = if alone { 1.0 } else { 0.6 };
            let size = shared * rng.range(room.size.0, room.size.1);
            let middle = match (alone, turn) {
                (true, _) => 0.5,
                (false, 0) => 0.26,
                (false, _) => 0.74,
            } + shared * rng.range(-room.aside, room.aside);
            let height = if grounded {
                rng.range(room.ground.0, room.ground.1) - size / 2.0
            } else {
                0.5 + rng.range(-room.aloft, room.aloft)
            };
            let mirrored = rng.chance(room.mirrored);
            if let Some(drawing) = album.get(&object.drawing) {
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
