//! A parameter's change in two numbers.

use tch::{Device, Kind, Tensor};
use weights::{Init, Source};

use crate::Formula;

/// The norm of a change, and its product with the procedural pattern of the parameter's name; of several parameters together, the
/// root of the sum of squares and the sum.
#[derive(Debug, Default, Clone, Copy)]
pub struct Digest {
    squares: f64,
    projection: f64,
    pattern_squares: f64,
}

impl Digest {
    /// Of the change of the parameter `name`.
    pub fn of(name: &str, change: &Tensor) -> Self {
        let change = change.detach().to_kind(Kind::Double);
        let pattern = Formula.fetch(name, &change.size(), Init::Const(0.0), (Kind::Float, Device::Cpu));
        let pattern = pattern.expect("there is memory for a pattern").to_kind(Kind::Double);
        let sum = |xs: Tensor| xs.sum(Kind::Double).double_value(&[]);
        Self {
            squares: sum(change.square()),
            projection: sum(&change * &pattern),
            pattern_squares: sum(pattern.square()),
        }
    }

    /// Adds that of another parameter.
    pub fn add(&mut self, other: Self) {
        self.squares += other.squares;
        self.projection += other.projection;
        self.pattern_squares += other.pattern_squares;
    }

    /// The norm.
    pub fn norm(&self) -> f64 {
        self.squares.sqrt()
    }

    /// The error of the norm and that of the product, against what a golden file says, `[2]`: relative to the norm there.
    pub fn error(&self, expected: &Tensor) -> f64 {
        let (norm, projection) = (expected.double_value(&[0]), expected.double_value(&[1]));
        let of_norm = (self.norm() / norm - 1.0).abs();
        let of_projection = (self.projection - projection).abs() / (norm * self.pattern_squares.sqrt());
        // A NaN is no small error.
        if of_norm.is_nan() || of_projection.is_nan() { f64::INFINITY } else { of_norm.max(of_projection) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_length_and_direction() {
        let change = Tensor::from_slice(&[3.0, -4.0]);
        let digest = Digest::of("x", &change);
        let exact = Tensor::from_slice(&[5.0, digest.projection]);
        assert!(digest.error(&exact) < 1e-12);
        assert!((Digest::of("x", &(&change * 1.5)).error(&exact) - 0.5).abs() < 1e-12);
        assert!(Digest::of("x", &change.flip([0])).error(&exact) > 1e-3, "as long, but another way");
        assert!(Digest::of("y", &change).error(&exact) > 1e-3, "of another name");
        assert_eq!(Digest::of("x", &(&change * f64::NAN)).error(&exact), f64::INFINITY);
        let mut both = digest;
        both.add(digest);
        assert!((both.norm() - 50f64.sqrt()).abs() < 1e-12);
    }
}
