//! What the tests of this crate share.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use golden::{Formula, fixtures};
use tch::{Device, Kind, Tensor};
use vae::{AutoencoderKl, Config};
use weights::{Init, Parameters, Source};

pub const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Uniform numbers in [-1, 1), as `numbers` in fixtures/vae/generate.py.
pub fn numbers(name: &str, shape: &[i64]) -> Tensor {
    let flat = Formula.fetch(name, &[shape.iter().product()], Init::Const(0.0), CPU).unwrap();
    (flat * 10.0).reshape(shape)
}

/// The tiny model in fixtures/`pipeline`/vae.
pub fn tiny(pipeline: &str) -> (AutoencoderKl, Parameters) {
    AutoencoderKl::from_folder(&fixtures().join(pipeline).join("vae"), CPU).unwrap()
}

/// A model with weights by formula.
pub fn procedural(config: &Config) -> (AutoencoderKl, Parameters) {
    weights::build(&Formula, CPU, |vs| AutoencoderKl::new(vs, config)).unwrap()
}
