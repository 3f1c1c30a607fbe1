//! Randomness that depends on nothing but its seed.
//!
//! Numbers come from LibTorch's CPU generator (Mersenne twister), seeded anew for every draw: `normal(s, shape)`
//! equals `torch.randn(shape, generator=torch.Generator().manual_seed(s))` in Python, whatever was drawn before and
//! on whichever device the result is used. A program that draws with seeds derived by [`derive()`] from
//! (run seed, purpose, step) can stop after any step and go on as if it had not.

use std::sync::{Mutex, PoisonError};

pub use options::derive_seed as derive;
use tch::{Device, Kind, Tensor};

/// LibTorch's generator is shared by all threads; a draw and its seeding must not be torn apart.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Standard normal numbers, f32 on the CPU.
pub fn normal(seed: u64, shape: &[i64]) -> Tensor {
    draw(seed, || Tensor::randn(shape, (Kind::Float, Device::Cpu)))
}

/// As many tensors [count, ...shape] as one generator gives when it is asked `count` times for `shape`. One draw of all
/// would differ where a tensor has other than a multiple of 16 numbers: LibTorch makes them 16 at a time.
pub fn normals(seed: u64, shape: &[i64], count: usize) -> Tensor {
    if count == 0 {
        return Tensor::zeros([&[0], shape].concat(), (Kind::Float, Device::Cpu));
    }
    draw(seed, || {
        let each: Vec<Tensor> = (0..count).map(|_| Tensor::randn(shape, (Kind::Float, Device::Cpu))).collect();
        Tensor::stack(&each, 0)
    })
}

/// Uniform numbers in [0, 1), f32 on the CPU.
pub fn uniform(seed: u64, shape: &[i64]) -> Tensor {
    draw(seed, || Tensor::rand(shape, (Kind::Float, Device::Cpu)))
}

/// Uniform integers in [0, `high`), i64 on the CPU.
pub fn integers(seed: u64, high: i64, shape: &[i64]) -> Tensor {
    draw(seed, || Tensor::randint(high, shape, (Kind::Int64, Device::Cpu)))
}

fn draw(seed: u64, numbers: impl FnOnce() -> Tensor) -> Tensor {
    let _guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    // LibTorch takes the seed's 64 bits as they are.
    tch::manual_seed(seed.cast_signed());
    numbers()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.randn(4, generator=torch.Generator().manual_seed(0))` and the same with `rand`, torch 2.11.0.
    #[test]
    fn draws_equal_pythons() {
        let expected = Tensor::from_slice(&[1.540_996_1_f32, -0.293_428_9, -2.178_789_4, 0.568_431_26]);
        assert_eq!(normal(0, &[4]), expected);
        let expected = Tensor::from_slice(&[0.496_256_6_f32, 0.768_221_8, 0.088_477_43, 0.132_030_49]);
        assert_eq!(uniform(0, &[4]), expected);
    }

    #[test]
    fn draws_do_not_disturb_each_other() {
        let first = normal(7, &[16]);
        let _ = integers(8, 1000, &[3]);
        assert_eq!(normal(7, &[16]), first);
        assert_ne!(normal(8, &[16]), first);
        assert!(i64::try_from(integers(9, 5, &[100]).max()).unwrap() < 5);
    }

    #[test]
    fn derived_seeds_differ_in_every_argument() {
        let seeds = [derive(1, "noise", 0), derive(2, "noise", 0), derive(1, "crop", 0), derive(1, "noise", 1)];
        for (i, a) in seeds.iter().enumerate() {
            assert!(seeds[i + 1..].iter().all(|b| a != b));
        }
    }
}
