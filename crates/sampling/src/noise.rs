//! The noise of one image.

use libtorch::random;
use tch::{Kind, Tensor};

use crate::Request;

/// The initial latents and each step's noise of a request, as one generator would draw them one after the other.
pub(crate) struct Noise {
    /// [channels, h, w], standard normal.
    pub(crate) initial: Tensor,
    /// [steps, channels, h, w]; empty for a sampler that draws none.
    steps: Tensor,
}

impl Noise {
    /// For latents of `shape` [channels, h, w] and a sampler that draws `draws` times on its way.
    pub(crate) fn new(request: &Request, shape: [i64; 3], draws: i64) -> Self {
        let draw = |count: i64| random::normals(request.seed, &shape, count as usize);
        match &request.latents {
            Some(latents) => Self { initial: latents.to_kind(Kind::Float), steps: draw(draws) },
            None => {
                let all = draw(1 + draws);
                Self { initial: all.get(0), steps: all.narrow(0, 1, draws) }
            }
        }
    }

    /// The noise for the step that is number `index` of those that add some.
    pub(crate) fn step(&self, index: i64) -> Tensor {
        self.steps.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_draw_is_the_draws_of_one_generator_in_turn() {
        // 18 numbers, no multiple of 16. The second: torch 2.11.0's second randn(2, 3, 3) of Generator().manual_seed(3).
        let odd = Noise::new(&Request::new("", 3), [2, 3, 3], 1);
        assert_eq!(odd.initial, random::normal(3, &[2, 3, 3]));
        let second = Tensor::from_slice(&[-0.348_089_3_f32, 0.348_746_36, 0.648_020_7, -2.325_607_3]);
        assert_eq!(odd.step(0).flatten(0, -1).narrow(0, 0, 4), second);

        let noise = Noise::new(&Request::new("", 3), [4, 2, 2], 2);
        assert_eq!(noise.initial, random::normal(3, &[4, 2, 2]));
        let given = Request { latents: Some(noise.initial.zeros_like()), ..Request::new("", 3) };
        let given = Noise::new(&given, [4, 2, 2], 2);
        assert_eq!(given.step(0), noise.initial);
        assert_eq!(given.step(1), noise.step(0));
    }
}
