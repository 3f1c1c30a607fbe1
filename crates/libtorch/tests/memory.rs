//! Freed memory that is kept: a setting of the whole process, which these tests have for themselves.
#![allow(clippy::unwrap_used)]

use std::thread;

use libtorch::random;
use tch::{Device, Kind, Tensor};

/// Tensors of all sizes, from several threads at once, each full of a number of its own.
#[test]
fn no_two_tensors_share_memory_and_freed_memory_comes_again() {
    libtorch::keep_freed_memory();
    let mut threads = Vec::new();
    for thread in 0..4u64 {
        threads.push(thread::spawn(move || {
            let sizes = Vec::<i64>::try_from(random::integers(thread, 22, &[400])).unwrap();
            let odd = Vec::<i64>::try_from(random::integers(thread + 10, 1000, &[400])).unwrap();
            let mut alive: Vec<(i64, Tensor)> = Vec::new();
            for (i, (&log, &odd)) in sizes.iter().zip(&odd).enumerate() {
                // Up to 2 million numbers, 8 MB.
                let length = (1i64 << log) + odd % (1 << log.min(9));
                let value = i64::try_from(thread).unwrap() * 1000 + i64::try_from(i).unwrap();
                let tensor = Tensor::full([length], value, (Kind::Float, Device::Cpu));
                assert_eq!(tensor.data_ptr() as usize % 64, 0);
                alive.push((value, tensor));
                if alive.len() > 12 {
                    let (value, tensor) = alive.swap_remove(usize::try_from(odd).unwrap() % alive.len());
                    let whole = tensor.min().double_value(&[]) == value as f64
                        && tensor.max().double_value(&[]) == value as f64;
                    assert!(whole, "the numbers of {value} are others'");
                }
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }

    let address = |numbers: i64| Tensor::zeros([numbers], (Kind::Float, Device::Cpu)).data_ptr() as usize;
    for numbers in [1, 100, 12345, 1 << 19] {
        assert_eq!(address(numbers), address(numbers), "{numbers}");
    }

    // A gigabyte of tensors of 1 MB: no more than the 128 MiB of them stay.
    let many: Vec<Tensor> = (0..1000).map(|_| Tensor::ones([1 << 18], (Kind::Float, Device::Cpu))).collect();
    drop(many);
    libtorch::release_cached_memory(Device::Cpu).unwrap();
    assert!(resident() < 600 << 20, "{} bytes stay", resident());
    assert_eq!(
        Tensor::ones([1 << 18], (Kind::Float, Device::Cpu)).sum(Kind::Float).double_value(&[]),
        f64::from(1 << 18)
    );
}

/// The bytes of this process in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
