//! Rotation as Pillow does it: the canvas grows, the nearest pixel is taken, and the corners are black.

use std::ops::Range;

use image::RgbImage;

/// Fractional bits of a position.
const FRACTION: u32 = 16;

/// A rotation of images of one size, computed row by row.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Width of the canvas that holds all of the rotated image.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// For the canvas pixel (column, row) the source position is `origin + column * right + row * down`.
    origin: [i64; 2],
    right: [i64; 2],
    down: [i64; 2],
}

impl Rotation {
    /// Rotates images of this size by so many degrees counter-clockwise about their center: `image.rotate(degrees, expand=True)`.
    ///
    /// Pillow's arithmetic, step by step, because each rounding decides about pixels: the sine and cosine rounded to
    /// 15 decimals, the size of the canvas from the rotated corners, positions in 16.16 fixed point. (Pillow leaves
    /// the fixed point where positions pass 32767; here it has the bits for any size.)
    pub fn new(degrees: f64, width: u32, height: u32) -> Self {
        let (sin, cos) = (-degrees.rem_euclid(360.0).to_radians()).sin_cos();
        let (sin, cos) = (round15(sin), round15(cos));
        let turn = |x: f64, y: f64, [c, f]: [f64; 2]| [cos * x + sin * y + c, -sin * x + cos * y + f];
        let (w, h) = (f64::from(width), f64::from(height));

        let mut shift = turn(-(w / 2.0), -(h / 2.0), [0.0, 0.0]);
        shift[0] += w / 2.0;
        shift[1] += h / 2.0;
        let corners = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)].map(|(x, y)| turn(x, y, shift));
        // Quarter turns are transpositions there; elsewhere every pixel that is touched belongs to the canvas.
        let quarter_turn = degrees % 90.0 == 0.0;
        let extent = |axis: usize| {
            let [a, b, c, d] = corners.map(|corner| corner[axis]);
            let (least, most) = (a.min(b).min(c).min(d), a.max(b).max(c).max(d));
            if quarter_turn { most - least } else { most.ceil() - least.floor() }
        };
        let (wide, high) = (extent(0), extent(1));
        let shift = turn(-(wide - w) / 2.0, -(high - h) / 2.0, shift);

        // The centers of pixels are half a pixel in.
        let origin = [shift[0] + cos * 0.5 + sin * 0.5, shift[1] + -sin * 0.5 + cos * 0.5];
        Self {
            width: wide as u32,
            height: high as u32,
            origin: origin.map(fixed),
            right: [cos, -sin].map(fixed),
            down: [sin, cos].map(fixed),
        }
    }

    /// Writes some columns of a row of the rotated `image`, which has the size that was given to [`Rotation::new`].
    pub(crate) fn row(&self, image: &RgbImage, row: u32, columns: Range<u32>, line: &mut [u8]) {
        let (width, height) = (i64::from(image.width()), i64::from(image.height()));
        let at = |axis: usize| {
            self.origin[axis] + i64::from(row) * self.down[axis] + i64::from(columns.start) * self.right[axis]
        };
        let (mut x, mut y) = (at(0), at(1));
        for pixel in line.chunks_exact_mut(3) {
            let (column, row) = (x >> FRACTION, y >> FRACTION);
            if (0..width).contains(&column) && (0..height).contains(&row) {
                let start = (row * width + column) as usize * 3;
                pixel.copy_from_slice(&image.as_raw()[start..start + 3]);
            } else {
                pixel.fill(0);
            }
            x += self.right[0];
            y += self.right[1];
        }
    }
}

/// To 15 decimals, correctly rounded, as Python's `round(x, 15)`; it also hides the last-digit differences between
/// the mathematical libraries of systems.
fn round15(x: f64) -> f64 {
    format!("{x:.15}").parse().unwrap_or(x)
}

fn fixed(x: f64) -> i64 {
    (x * f64::from(1 << FRACTION) + 0.5).floor() as i64
}
