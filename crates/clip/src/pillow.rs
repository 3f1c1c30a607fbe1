//! Pillow's way to resize 8-bit images: rows, then columns, with fixed-point weights and bytes in between.
//!
//! Pillow 13 (2026) begins with the columns where that is faster, and differs from all older releases there.

use anyhow::Result;
use libtorch::HostBytes;
use tch::{Device, Kind, Tensor};

const CHANNELS: usize = 3;
/// Bits after the binary point of a weight: 32, less 8 of the pixel and 2 for sums beyond 0..=255.
const PRECISION: u32 = 32 - 8 - 2;
/// How far the bicubic filter reaches, in input pixels when enlarging, in output pixels when reducing.
const SUPPORT: f64 = 2.0;

/// Resizes bytes [3, height, width] to [3, new_height, new_width] with the bicubic filter.
pub(crate) fn resize(image: &Tensor, new_height: i64, new_width: i64) -> Result<Tensor> {
    let (height, width) = (usize::try_from(image.size()[1])?, usize::try_from(image.size()[2])?);
    let (rows, columns) = (usize::try_from(new_height)?, usize::try_from(new_width)?);
    let pixels = HostBytes::of(&image.permute([1, 2, 0]))?;
    let narrowed;
    let mut wide: &[u8] = &pixels;
    if columns != width {
        narrowed = resize_rows(wide, width, &windows(width, columns));
        wide = &narrowed;
    }
    let to = (Kind::Uint8, Device::Cpu);
    let shape = [new_height, new_width, CHANNELS as i64];
    let resized = if rows == height {
        libtorch::tensor_from_bytes(wide, Kind::Uint8, &shape, to)?
    } else {
        libtorch::tensor_from_bytes(&resize_columns(wide, columns, &windows(height, rows)), Kind::Uint8, &shape, to)?
    };
    Ok(resized.permute([2, 0, 1]))
}

/// The input pixels that make one output pixel.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

fn windows(input: usize, output: usize) -> Vec<Window> {
    let scale = input as f64 / output as f64;
    let stretch = scale.max(1.0);
    let reach = SUPPORT * stretch;
    let window = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        // Casts to usize cut off what lies before the image.
        let start = (center - reach + 0.5) as usize;
        let end = ((center + reach + 0.5) as usize).min(input);
        let weights: Vec<f64> = (start..end).map(|x| bicubic((x as f64 - center + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / sum * f64::from(1u32 << PRECISION)).round() as i32;
        Window { start, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..output).map(window).collect()
}

/// The cubic convolution filter with a = -1/2 (R. Keys, 1981).
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn resize_rows(pixels: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    let mut resized = Vec::with_capacity(pixels.len() / width * windows.len());
    for row in pixels.chunks_exact(width * CHANNELS) {
        for window in windows {
            let inputs = row[window.start * CHANNELS..].chunks_exact(CHANNELS);
            let mut sums = [HALF; CHANNELS];
            for (input, weight) in inputs.zip(&window.weights) {
                for (sum, &byte) in sums.iter_mut().zip(input) {
                    *sum += i32::from(byte) * weight;
                }
            }
            resized.extend(sums.map(to_byte));
        }
    }
    resized
}

fn resize_columns(pixels: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    let row_len = width * CHANNELS;
    let mut resized = Vec::with_capacity(row_len * windows.len());
    let mut sums = vec![HALF; row_len];
    for window in windows {
        sums.fill(HALF);
        for (row, weight) in pixels[window.start * row_len..].chunks_exact(row_len).zip(&window.weights) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += i32::from(byte) * weight;
            }
        }
        resized.extend(sums.iter().copied().map(to_byte));
    }
    resized
}

/// One half, so that cutting off the fraction rounds.
const HALF: i32 = 1 << (PRECISION - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
