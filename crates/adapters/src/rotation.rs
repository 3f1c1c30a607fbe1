//! OFT: W diag(Q₁ … Q_r)ᵀ with rotations Q by Cayley's formula (arXiv 2306.07280, section 3).

use layers::LinearAdapter;
use libtorch::Weight;
use tch::{Device, Kind, Tensor};

/// The largest blocks that are solved together on a CPU: of some 128 rows and more, LibTorch 2.11 (oneMKL) fails to decompose several
/// matrices at once in more than one thread.
const BATCHED: i64 = 64;

/// Rotations of a layer's inputs, in blocks.
#[derive(Debug)]
pub(crate) struct RotationAdapter {
    /// The upper triangles of the antisymmetric S, row by row: [blocks, b (b - 1) / 2], f32, as peft stores them.
    pub(crate) triangles: Tensor,
    /// The places of a triangle's numbers in b · b, i64.
    places: Tensor,
    /// b, the inputs of a block.
    block: i64,
    /// COFT: the largest norm of an S.
    bound: Option<f64>,
}

impl RotationAdapter {
    /// No rotation, of `triangles` of zeros; `places` are those of [`upper_triangle`].
    pub(crate) fn new(triangles: Tensor, places: Tensor, block: i64, constraint: Option<f64>) -> Self {
        let blocks = triangles.size()[0] as f64;
        let bound = constraint.map(|eps| eps * (block * block) as f64 / blocks.sqrt());
        Self { triangles, places, block, bound }
    }

    pub(crate) fn shared(&self) -> Self {
        let (triangles, places) = (self.triangles.shallow_clone(), self.places.shallow_clone());
        Self { triangles, places, ..*self }
    }

    /// Q = (I - S)(I + S)⁻¹ of each block, [blocks, b, b].
    fn rotations(&self) -> Tensor {
        let (blocks, b) = (self.triangles.size()[0], self.block);
        let to = (Kind::Float, self.triangles.device());
        let upper = Tensor::zeros([blocks, b * b], to).index_copy(1, &self.places, &self.triangles);
        let upper = upper.view([blocks, b, b]);
        let (skew, one) = (&upper - upper.transpose(1, 2), Tensor::eye(b, to));
        // The two factors commute.
        let solve = |skew: &Tensor| Tensor::linalg_solve(&(&one + skew), &(&one - skew), true);
        if b <= BATCHED || to.1 != Device::Cpu {
            return solve(&skew);
        }
        Tensor::stack(&(0..blocks).map(|i| solve(&skew.get(i))).collect::<Vec<_>>(), 0)
    }

    /// COFT: shortens each S that is longer than the bound.
    pub(crate) fn project(&self) {
        let Some(bound) = self.bound else { return };
        tch::no_grad(|| {
            let norms = (self.triangles.square().sum_dim_intlist(1, true, Kind::Float) * 2.0).sqrt();
            let _ = self.triangles.shallow_clone().g_mul_(&(bound * norms.reciprocal()).clamp_max(1.0));
        });
    }
}

impl LinearAdapter for RotationAdapter {
    fn merged(&self, weight: &Tensor) -> Tensor {
        let (rotations, rows) = (self.rotations(), weight.size()[0]);
        let parts = weight.to_kind(Kind::Float).view([rows, -1, self.block]).transpose(0, 1);
        parts.matmul(&rotations.transpose(1, 2)).transpose(0, 1).reshape([rows, -1])
    }

    /// Turns the inputs rather than the weight: backward that needs no gradient of the weight, which would cost as much
    /// as a pass of the layer.
    fn forward(&self, xs: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Tensor {
        let parts = xs.reshape([-1, self.triangles.size()[0], self.block]).transpose(0, 1);
        let turned = parts.matmul(&self.rotations().to_kind(xs.kind())).transpose(0, 1);
        weight.linear(&turned.reshape(xs.size()), bias)
    }
}

/// Where the numbers above the diagonal of a `b` × `b` matrix are, row by row, i64.
pub(crate) fn upper_triangle(b: i64) -> Tensor {
    let places = Tensor::triu_indices(b, b, 1, (Kind::Int64, tch::Device::Cpu));
    places.get(0) * b + places.get(1)
}

#[cfg(test)]
mod tests {
    use golden::assert_close;
    use libtorch::random::normal;

    use super::*;

    fn adapter(constraint: Option<f64>) -> RotationAdapter {
        RotationAdapter::new(normal(1, &[3, 15]), upper_triangle(6), 6, constraint)
    }

    #[test]
    fn blocks_are_rotations_and_turn_the_inputs() {
        let (adapter, weight) = (adapter(None), normal(2, &[7, 18]));
        let rotations = adapter.rotations();
        let one = Tensor::eye(6, (Kind::Float, Device::Cpu)).expand([3, 6, 6], false);
        assert_close("Q Qᵀ", &rotations.matmul(&rotations.transpose(1, 2)), &one, 1e-5);
        assert_close("det Q", &Tensor::linalg_det(&rotations), &Tensor::ones([3], (Kind::Float, Device::Cpu)), 1e-5);
        let whole = Tensor::block_diag(&[rotations.get(0), rotations.get(1), rotations.get(2)]);
        assert_close("W diag(Q)ᵀ", &adapter.merged(&weight), &weight.matmul(&whole.tr()), 1e-5);
        let (xs, bias) = (normal(3, &[2, 5, 18]), normal(4, &[7]));
        let expected = xs.linear(&adapter.merged(&weight), Some(&bias));
        assert_close(
            "x diag(Q) Wᵀ + b",
            &adapter.forward(&xs, &Weight::new(weight.copy()), Some(&bias)),
            &expected,
            1e-5,
        );
        let none = RotationAdapter { triangles: Tensor::zeros([3, 15], (Kind::Float, Device::Cpu)), ..adapter };
        assert_eq!(none.merged(&weight), weight);
    }

    #[test]
    fn large_blocks_are_rotations_too() {
        let size = 320;
        let triangles = (normal(1, &[4, size * (size - 1) / 2]) * 1e-2).set_requires_grad(true);
        let adapter = RotationAdapter::new(triangles, upper_triangle(size), size, None);
        let rotations = adapter.rotations();
        let one = Tensor::eye(size, (Kind::Float, Device::Cpu)).expand([4, size, size], false);
        assert_close("Q Qᵀ", &rotations.matmul(&rotations.transpose(1, 2)), &one, 1e-5);
        rotations.square().sum(Kind::Float).backward();
        // Of a rotation, it is always its size.
        assert!(adapter.triangles.grad().abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn a_projection_shortens_what_is_longer_than_the_bound() {
        let adapter = adapter(Some(0.1));
        let _ = adapter.triangles.get(1).g_mul_scalar_(1e-3);
        let before = adapter.triangles.copy();
        adapter.project();
        let length = |i: i64| f64::try_from(adapter.triangles.get(i).norm() * 2f64.sqrt()).unwrap();
        let bound = 0.1 * 36.0 / 3f64.sqrt();
        assert!((length(0) / bound - 1.0).abs() < 1e-6 && (length(2) / bound - 1.0).abs() < 1e-6);
        assert_eq!(adapter.triangles.get(1), before.get(1));
        let once = adapter.triangles.copy();
        adapter.project();
        assert_close("again", &adapter.triangles, &once, 1e-7);
    }
}
