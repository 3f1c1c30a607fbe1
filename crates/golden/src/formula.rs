//! Procedural weights. Must match `fixtures/fill.py` bit for bit.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};
use weights::{Init, Problem, Source};

/// A [`Source`] that fills every parameter from its name: element `i` is `lowbias32(i ^ hash(name))` as a number in
/// [-1, 1), scaled as below so that activations keep their size through a deep model.
#[derive(Debug, Clone, Copy)]
pub struct Formula;

impl Formula {
    /// Gives a parameter, an f32 leaf on the CPU, the values of a name.
    pub fn fill(&self, name: &str, parameter: &Tensor) {
        let values = self.fetch(name, &parameter.size(), Init::Const(0.0), (Kind::Float, Device::Cpu));
        let values = values.expect("there is memory for a parameter's values");
        tch::no_grad(|| parameter.shallow_clone().copy_(&values));
    }
}

impl Source for Formula {
    fn describe(&self) -> String {
        "the procedural formula".to_owned()
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn contains(&self, _: &str) -> bool {
        false
    }

    fn fetch(&self, name: &str, shape: &[i64], _: Init, to: (Kind, Device)) -> Result<Tensor, Problem> {
        let seed = fnv1a(name);
        let fan_in: i64 = shape.iter().skip(1).product();
        let (scale, offset) = match shape {
            [_] if name.ends_with("weight") => (0.1, 1.0),
            [_] => (0.1, 0.0),
            _ => (((3.0 / fan_in as f64).sqrt()) as f32, 0.0),
        };
        let len = shape.iter().product::<i64>();
        let mut bytes = vec![0u8; usize::try_from(len).expect("a shape has no negative sides") * 4];
        bytes.par_chunks_mut(4).enumerate().with_min_len(1 << 16).for_each(|(i, out)| {
            let value = unit(lowbias32(i as u32 ^ seed)) * scale + offset;
            out.copy_from_slice(&value.to_le_bytes());
        });
        libtorch::tensor_from_bytes(&bytes, Kind::Float, shape, to).map_err(Problem::Copy)
    }
}

/// A number in [-1, 1), exact in f32.
fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 / 8_388_608.0 - 1.0
}

/// The integer hash "lowbias32" (Chris Wellons, public domain).
fn lowbias32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn fnv1a(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by `python fixtures/fill.py`.
    #[test]
    fn values_equal_pythons() {
        let to = (Kind::Float, Device::Cpu);
        let weight = Formula.fetch("conv.weight", &[2, 3], Init::Const(0.0), to).unwrap();
        let norm = Formula.fetch("norm.weight", &[2], Init::Const(0.0), to).unwrap();
        let bias = Formula.fetch("conv.bias", &[2], Init::Const(0.0), to).unwrap();
        for (tensor, expected) in [(weight, WEIGHT.as_slice()), (norm, &NORM), (bias, &BIAS)] {
            assert_eq!(Vec::<f32>::try_from(tensor.reshape([-1])).unwrap(), expected);
        }
    }

    const WEIGHT: [f32; 6] = [0.357_857_47, -0.608_044_74, 0.322_850_1, -0.287_414_8, -0.147_236_35, -0.115_043_52];
    const NORM: [f32; 2] = [0.965_047_4, 1.062_539_2];
    const BIAS: [f32; 2] = [0.026_512_027, 0.021_025_18];
}
