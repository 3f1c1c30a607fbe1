//! Resizing as Pillow does it, to the bit: antialiased, in fixed point.
//!
//! Rows are narrowed first, then columns, as in every Pillow before 13. Pillow 13 takes the columns of tall images first
//! where that is quicker, which rounds some samples to the neighbouring value.

use std::ops::Range;

use image::RgbImage;

use crate::rotate::Rotation;

/// Fractional bits of a weight: 32, less 8 of the sample and 2 for sums beyond 0..=255.
const PRECISION: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION - 1);
const CHANNELS: usize = 3;

/// How much each source pixel counts by its distance from the middle of a target pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A triangle: `Image.BILINEAR`.
    Bilinear,
    /// Cubic convolution with a = -1/2 (R. Keys, 1981): `Image.BICUBIC`.
    Bicubic,
}

impl Filter {
    /// How far it reaches, in source pixels when enlarging, in target pixels when reducing.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        let x = distance.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// The size whose shorter side is `short`, as torchvision computes it (the longer side rounded down).
pub fn with_short_side(width: u32, height: u32, short: u32) -> (u64, u64) {
    let (width, height, short) = (u64::from(width), u64::from(height), u64::from(short));
    if width <= height { (short, short * height / width) } else { (short * width / height, short) }
}

/// The whole image at another size: `image.resize((width, height), filter)`.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let size = (u64::from(width), u64::from(height));
    resize_part(image, None, filter, size, 0..size.0, 0..size.1)
}

/// The columns `x` and rows `y` of the image rotated, then resized to `size` (width, height).
///
/// Neither the rotated nor the resized image is ever held: rows are rotated as they are needed, and only as much as
/// the part shows. `rotation` belongs to images of this one's size.
pub fn resize_part(
    image: &RgbImage,
    rotation: Option<&Rotation>,
    filter: Filter,
    size: (u64, u64),
    x: Range<u64>,
    y: Range<u64>,
) -> RgbImage {
    let (width, height) = rotation.map_or(image.dimensions(), |rotation| (rotation.width, rotation.height));
    let (x, y) = (Axis::new(width, size.0, x, filter), Axis::new(height, size.1, y, filter));
    let columns = x.span();
    resample(&x, &y, |row, line| match rotation {
        Some(rotation) => rotation.row(image, row, columns.clone(), line),
        None => {
            let start = row as usize * width as usize;
            let [from, to] = [columns.start, columns.end].map(|column| (start + column as usize) * CHANNELS);
            line.copy_from_slice(&image.as_raw()[from..to]);
        }
    })
}

/// Part of one axis of a resize: of which source pixels each target pixel is made.
struct Axis {
    taps: Vec<Taps>,
    weights: Vec<i32>,
}

struct Taps {
    first: u32,
    weights: Range<usize>,
}

impl Axis {
    /// The pixels `targets` of an axis of `source` pixels resized to `resized` pixels.
    fn new(source: u32, resized: u64, targets: Range<u64>, filter: Filter) -> Self {
        let scale = f64::from(source) / resized as f64;
        let stretch = scale.max(1.0);
        let reach = filter.support() * stretch;
        let mut axis = Self { taps: Vec::new(), weights: Vec::new() };
        let mut weights = Vec::new();
        for target in targets {
            let center = (target as f64 + 0.5) * scale;
            // Pillow's rounding: towards zero after adding a half.
            let first = (center - reach + 0.5).max(0.0) as u32;
            let end = ((center + reach + 0.5) as u32).min(source);
            weights.clear();
            weights
                .extend((first..end).map(|pixel| filter.weight((f64::from(pixel) - center + 0.5) * (1.0 / stretch))));
            let sum: f64 = weights.iter().sum();
            let start = axis.weights.len();
            let one = f64::from(1 << PRECISION);
            axis.weights.extend(weights.iter().map(|weight| (0.5_f64.copysign(*weight) + weight / sum * one) as i32));
            axis.taps.push(Taps { first, weights: start..axis.weights.len() });
        }
        axis
    }

    /// The source pixels that any target pixel needs.
    fn span(&self) -> Range<u32> {
        let start = self.taps.first().map_or(0, |taps| taps.first);
        let end = self.taps.last().map_or(start, |taps| taps.first + taps.weights.len() as u32);
        start..end
    }

    /// First source pixel, counted from the start of the span, and weights of each target pixel.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let start = self.span().start;
        self.taps.iter().map(move |taps| ((taps.first - start) as usize, &self.weights[taps.weights.clone()]))
    }
}

/// Resizes what `row` supplies: it is called once for each row of `y`'s span, in order, with a buffer for the
/// columns of `x`'s span.
fn resample(x: &Axis, y: &Axis, mut row: impl FnMut(u32, &mut [u8])) -> RgbImage {
    let (width, height) = (x.taps.len(), y.taps.len());
    let mut line = vec![0; x.span().len() * CHANNELS];
    let mut narrowed = vec![0; y.span().len() * width * CHANNELS];
    for (source, target) in y.span().zip(narrowed.chunks_exact_mut((width * CHANNELS).max(1))) {
        row(source, &mut line);
        for (pixel, (first, weights)) in target.chunks_exact_mut(CHANNELS).zip(x.iter()) {
            let mut sums = [HALF; CHANNELS];
            for (source, weight) in line[first * CHANNELS..].chunks_exact(CHANNELS).zip(weights) {
                for (sum, sample) in sums.iter_mut().zip(source) {
                    *sum += i32::from(*sample) * weight;
                }
            }
            pixel.copy_from_slice(&sums.map(sample));
        }
    }
    let mut image = RgbImage::new(width as u32, height as u32);
    let mut sums = vec![0; width * CHANNELS];
    for (target, (first, weights)) in image.chunks_exact_mut((width * CHANNELS).max(1)).zip(y.iter()) {
        sums.fill(HALF);
        for (source, weight) in narrowed[first * width * CHANNELS..].chunks_exact(width * CHANNELS).zip(weights) {
            for (sum, sample) in sums.iter_mut().zip(source) {
                *sum += i32::from(*sample) * weight;
            }
        }
        for (pixel, sum) in target.iter_mut().zip(&sums) {
            *pixel = sample(*sum);
        }
    }
    image
}

fn sample(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
