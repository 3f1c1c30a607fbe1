//! LoRA: W + alpha / r · B A (arXiv 2106.09685, section 4.1).

use layers::LinearAdapter;
use libtorch::Weight;
use tch::{Kind, Tensor};

/// A change of low rank, as a layer computes with it.
#[derive(Debug)]
pub(crate) struct LowRankAdapter {
    /// A, [r, in], f32.
    pub(crate) down: Tensor,
    /// B, [out, r], f32.
    pub(crate) up: Tensor,
    /// alpha / r.
    pub(crate) scale: f64,
}

impl LowRankAdapter {
    pub(crate) fn shared(&self) -> Self {
        Self { down: self.down.shallow_clone(), up: self.up.shallow_clone(), scale: self.scale }
    }
}

impl LinearAdapter for LowRankAdapter {
    fn merged(&self, weight: &Tensor) -> Tensor {
        weight.to_kind(Kind::Float) + (&self.up * self.scale).matmul(&self.down)
    }

    /// The product of the factors, as large as the weight, is never made.
    fn forward(&self, xs: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Tensor {
        let kind = xs.kind();
        let (down, up) = (self.down.to_kind(kind), self.up.to_kind(kind));
        let mut size = xs.size();
        let rows = xs.reshape([-1, down.size()[1]]);
        let mut hidden = rows.linear(&down, None::<&Tensor>);
        if self.scale != 1.0 {
            hidden *= self.scale;
        }
        let ys = weight.linear(&rows, bias).addmm_(&hidden, &up.tr());
        if let Some(last) = size.last_mut() {
            *last = ys.size()[1];
        }
        ys.view(size.as_slice())
    }
}
