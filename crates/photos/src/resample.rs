//! Resizing as Pillow does it: bilinear, antialiased, in fixed point.
//!
//! Rows are narrowed first, then columns, as in every Pillow before 13 and so in the authors' (9.4). Pillow 13 takes the
//! columns of tall images first where that is quicker, which rounds some samples to the neighbouring value.

use std::ops::Range;

use image::RgbImage;

/// Fractional bits of a weight; with 8 bits of sample and a sign the products fit 32 bits.
const PRECISION: u32 = 22;
const HALF: i32 = 1 << (PRECISION - 1);
const CHANNELS: usize = 3;

/// One axis of a resize: of which source pixels each wanted pixel is made.
///
/// Only the `wanted` part of the resized axis is prepared, so a crop costs no more than it shows.
pub(crate) struct Axis {
    taps: Vec<Taps>,
    weights: Vec<i32>,
}

struct Taps {
    first: u32,
    weights: Range<usize>,
}

impl Axis {
    /// The pixels `wanted` of an axis of `source` pixels resized to `resized` pixels.
    pub(crate) fn new(source: u32, resized: u64, wanted: Range<u64>) -> Self {
        let scale = f64::from(source) / resized as f64;
        // A triangle as wide as two source pixels, or two target pixels where these are larger.
        let support = scale.max(1.0);
        let mut axis = Self { taps: Vec::new(), weights: Vec::new() };
        let mut triangle = Vec::new();
        for target in wanted {
            let center = (target as f64 + 0.5) * scale;
            // Pillow's rounding: towards zero after adding a half.
            let first = (center - support + 0.5).max(0.0) as u32;
            let end = ((center + support + 0.5) as u32).min(source);
            triangle.clear();
            triangle.extend((first..end).map(|pixel| {
                let distance = (f64::from(pixel) - center + 0.5) * (1.0 / support);
                (1.0 - distance.abs()).max(0.0)
            }));
            let sum: f64 = triangle.iter().sum();
            let start = axis.weights.len();
            let one = f64::from(1 << PRECISION);
            axis.weights.extend(triangle.iter().map(|weight| (0.5 + weight / sum * one) as i32));
            axis.taps.push(Taps { first, weights: start..axis.weights.len() });
        }
        axis
    }

    /// The source pixels that any wanted pixel needs.
    pub(crate) fn span(&self) -> Range<u32> {
        let start = self.taps.first().map_or(0, |taps| taps.first);
        let end = self.taps.last().map_or(start, |taps| taps.first + taps.weights.len() as u32);
        start..end
    }

    /// First source pixel, counted from the start of the span, and weights of each wanted pixel.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let start = self.span().start;
        self.taps.iter().map(move |taps| ((taps.first - start) as usize, &self.weights[taps.weights.clone()]))
    }
}

/// Resizes what `row` supplies: it is called once for each row of `y`'s span, in order, with a buffer for the
/// columns of `x`'s span.
pub(crate) fn resample(x: &Axis, y: &Axis, mut row: impl FnMut(u32, &mut [u8])) -> RgbImage {
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
    let mut picture = RgbImage::new(width as u32, height as u32);
    let mut sums = vec![0; width * CHANNELS];
    for (target, (first, weights)) in picture.chunks_exact_mut((width * CHANNELS).max(1)).zip(y.iter()) {
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
    picture
}

fn sample(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The size whose shorter side is `short`, as torchvision computes it (the longer side rounded down).
pub(crate) fn with_short_side(width: u32, height: u32, short: u32) -> (u64, u64) {
    let (width, height, short) = (u64::from(width), u64::from(height), u64::from(short));
    if width <= height { (short, short * height / width) } else { (short * width / height, short) }
}

/// The whole picture with its shorter side `short` pixels long.
pub(crate) fn resize(picture: &RgbImage, short: u32) -> RgbImage {
    let (width, height) = with_short_side(picture.width(), picture.height(), short);
    let (x, y) = (Axis::new(picture.width(), width, 0..width), Axis::new(picture.height(), height, 0..height));
    resample(&x, &y, |row, line| line.copy_from_slice(row_of(picture, row, x.span())))
}

/// The samples of some columns of a row.
pub(crate) fn row_of(picture: &RgbImage, row: u32, columns: Range<u32>) -> &[u8] {
    let start = row as usize * picture.width() as usize;
    &picture.as_raw()[(start + columns.start as usize) * CHANNELS..(start + columns.end as usize) * CHANNELS]
}
