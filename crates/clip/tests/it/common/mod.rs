//! Inputs that fixtures/clip/generate.py makes too.
#![allow(dead_code, reason = "no test binary needs all of it")]

use golden::Formula;
use tch::{Device, Kind, Tensor};
use weights::{Init, Source};

pub(crate) const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
/// Of the tiny vocabulary.
pub(crate) const BOS: i64 = 1198;
pub(crate) const EOS: i64 = 1199;
pub(crate) const POSITIONS: usize = 77;

/// Uniform numbers in [-1, 1).
pub(crate) fn numbers(name: &str, shape: &[i64]) -> Tensor {
    let flat = Formula.fetch(name, &[shape.iter().product()], Init::Const(0.0), CPU).unwrap();
    (flat * 10.0).reshape(shape)
}

/// Texts of so many tokens between BOS and EOS, padded.
pub(crate) fn ids(lengths: &[i64], pad: i64, (bos, eos): (i64, i64)) -> Tensor {
    let rows = lengths.iter().zip(0..).map(|(&length, row)| {
        let words = (0..length).map(|i| (37 * i + 101 * row + 11) % bos);
        let text = [bos].into_iter().chain(words).chain([eos]).chain(std::iter::repeat(pad));
        Tensor::from_slice(&text.take(POSITIONS).collect::<Vec<i64>>())
    });
    Tensor::stack(&rows.collect::<Vec<_>>(), 0)
}

/// An image with texture and hard edges, as rows of red, green and blue.
pub(crate) fn image(height: i64, width: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for c in 0..3 {
            let texture = (3 * x * x + 5 * y * y + 7 * x * y + 85 * c) % 256;
            let edge = (x / 7 + y / 5 + c) % 3 == 0;
            bytes.push(if edge { 255 } else { u8::try_from(texture).unwrap() });
        }
    }
    bytes
}
