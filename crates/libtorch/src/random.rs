//! Randomness that depends on nothing but its seed.
//!
//! Each call has a generator of its own: `normal(s, shape)` equals
//! `torch.randn(shape, generator=torch.Generator().manual_seed(s))` in Python, whatever was drawn before and on whichever
//! device the result is used. LibTorch's global generators, which belong to the caller, are neither read nor seeded. A
//! program that draws with seeds derived by [`derive()`] from (run seed, purpose, step) can stop after any step and resume as
//! if it had not.

use std::ptr;

pub use options::derive_seed as derive;
use tch::{Kind, Tensor};

use crate::shim::{self, CGenerator, check, made, or_panic};

/// Standard normal numbers, f32 on the CPU.
pub fn normal(seed: u64, shape: &[i64]) -> Tensor {
    Generator::new(seed).normal(shape)
}

/// As many tensors [count, ...shape] as one generator gives when it is asked `count` times for `shape`. One draw of all
/// would differ where a tensor has other than a multiple of 16 numbers: LibTorch makes them 16 at a time.
pub fn normals(seed: u64, shape: &[i64], count: usize) -> Tensor {
    if count == 0 {
        return Tensor::zeros([&[0], shape].concat(), (Kind::Float, tch::Device::Cpu));
    }
    let generator = Generator::new(seed);
    Tensor::stack(&(0..count).map(|_| generator.normal(shape)).collect::<Vec<_>>(), 0)
}

/// Uniform numbers in [0, 1), f32 on the CPU.
pub fn uniform(seed: u64, shape: &[i64]) -> Tensor {
    let generator = Generator::new(seed);
    // Safety: generator and shape outlive the call, which writes a new tensor unless it fails.
    or_panic(unsafe { made(|to| shim::shim_uniform(generator.0, shape.as_ptr(), shape.len(), to)) })
}

/// Uniform integers in [0, `high`), i64 on the CPU.
pub fn integers(seed: u64, high: i64, shape: &[i64]) -> Tensor {
    let generator = Generator::new(seed);
    // Safety: as in `uniform`.
    or_panic(unsafe { made(|to| shim::shim_integers(generator.0, high, shape.as_ptr(), shape.len(), to)) })
}

/// LibTorch's generator for the CPU (Mersenne twister), one of our own.
struct Generator(*mut CGenerator);

impl Generator {
    fn new(seed: u64) -> Self {
        let mut generator = ptr::null_mut();
        // Safety: `generator` is written to, if at all, with what `shim_generator_free` is for.
        or_panic(unsafe { check(shim::shim_generator_new(seed, &raw mut generator)) });
        Self(generator)
    }

    /// The next standard normal numbers, f32.
    fn normal(&self, shape: &[i64]) -> Tensor {
        // Safety: as in `uniform`.
        or_panic(unsafe { made(|to| shim::shim_normal(self.0, shape.as_ptr(), shape.len(), to)) })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Safety: made by `shim_generator_new` and freed nowhere else.
        unsafe { shim::shim_generator_free(self.0) };
    }
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
    fn the_callers_random_stream_is_undisturbed() {
        let stream = |between: &dyn Fn()| {
            tch::manual_seed(3);
            let first = Tensor::randn([5], (Kind::Float, tch::Device::Cpu));
            between();
            // 5 is odd, so half a pair of normal numbers waits in the generator.
            [first, Tensor::randn([5], (Kind::Float, tch::Device::Cpu))]
        };
        let draws = || drop([normal(1, &[3]), normals(2, &[3], 2), uniform(4, &[3]), integers(5, 9, &[3])]);
        assert_eq!(stream(&|| ()), stream(&draws));
    }

    #[test]
    fn shapes_that_no_tensor_has_are_caught() {
        let error = crate::catch(|| normal(1, &[2, -1])).unwrap_err().to_string();
        assert!(error.contains("negative"), "{error}");
        assert_eq!(normal(1, &[]).size(), [0i64; 0]);
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
