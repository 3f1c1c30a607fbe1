//! The noise of one picture.

use anyhow::{Result, ensure};
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
    pub(crate) fn new(request: &Request, shape: [i64; 3], draws: i64) -> Result<Self> {
        let [channels, height, width] = shape;
        let draw = |count| random::normal(request.seed, &[count, channels, height, width]);
        Ok(match &request.latents {
            Some(latents) => {
                ensure!(
                    latents.size() == shape,
                    "the initial latents have shape {:?}, but pictures of this size need {shape:?}",
                    latents.size()
                );
                Self { initial: latents.to_kind(Kind::Float), steps: draw(draws) }
            }
            None => {
                let all = draw(1 + draws);
                Self { initial: all.get(0), steps: all.narrow(0, 1, draws) }
            }
        })
    }

    /// What draw number `index` gave.
    pub(crate) fn step(&self, index: i64) -> Tensor {
        self.steps.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_draw_is_the_draws_of_one_generator_in_turn() {
        let noise = Noise::new(&Request::new("", 3), [4, 2, 2], 2).unwrap();
        assert_eq!(noise.initial, random::normal(3, &[4, 2, 2]));
        let given = Request { latents: Some(noise.initial.zeros_like()), ..Request::new("", 3) };
        let given = Noise::new(&given, [4, 2, 2], 2).unwrap();
        assert_eq!(given.step(0), noise.initial);
        assert_eq!(given.step(1), noise.step(0));
    }

    #[test]
    fn latents_of_another_size_are_refused() {
        let request = Request { latents: Some(random::normal(0, &[4, 8, 8])), ..Request::new("", 0) };
        let error = Noise::new(&request, [4, 16, 16], 0).err().unwrap().to_string();
        assert!(error.contains("[4, 8, 8]") && error.contains("[4, 16, 16]"), "{error}");
    }
}
