//! `cargo bench -p attndreambooth-regularizer`: the statistics, the loss and the way back, of all layers of Stable Diffusion 2.1.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use libtorch::{DeviceChoice, random, synchronize};
use regularizer::{AttentionRegularizer, Config};
use tch::{Device, Tensor};

/// Times `run` with the device's queue empty before and after.
fn time(device: Device, iterations: u64, mut run: impl FnMut()) -> Duration {
    synchronize(device);
    let start = Instant::now();
    for _ in 0..iterations {
        run();
    }
    synchronize(device);
    start.elapsed()
}

fn benchmark(c: &mut Criterion, batch: i64, side: i64) {
    let device = libtorch::resolve(DeviceChoice::Auto).expect("auto is always there");
    // Heads and how much smaller than the latents each map is.
    let layers = [(5, 1), (10, 2), (20, 4)].iter().flat_map(|layer| [layer; 5]).chain([&(20, 8)]);
    let map = |(heads, factor): &(i64, i64)| {
        let pixels = (side / factor) * (side / factor);
        random::uniform(1, &[batch, 2, *heads, pixels]).to_device(device).set_requires_grad(true)
    };
    let maps: Vec<Tensor> = layers.map(map).collect();
    let regularizer = AttentionRegularizer::new(&Config::default(), &[5], &[6]).expect("the positions differ");
    let loss = || {
        let reduce = |(index, map): (usize, &Tensor)| regularizer.reduce(&index.to_string(), map);
        let statistics: Vec<_> = maps.iter().enumerate().map(reduce).collect();
        regularizer.loss(&statistics).expect("the layers are seen once")
    };
    let mut group = c.benchmark_group(format!("sd21 {side}x{side}, batch {batch}, {device:?}"));
    group.sample_size(10);
    group.bench_function("forward", |b| b.iter_custom(|n| time(device, n, || drop(loss()))));
    group.bench_function("forward and backward", |b| b.iter_custom(|n| time(device, n, || loss().backward())));
    group.finish();
}

fn benches(c: &mut Criterion) {
    benchmark(c, 1, 16);
    benchmark(c, 8, 64);
}

criterion_group!(regularizer, benches);
criterion_main!(regularizer);
