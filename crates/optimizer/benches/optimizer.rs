//! `cargo bench -p attndreambooth-optimizer`: one step, a clipping and an update of the average, of many small and of a few large
//! tensors.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use libtorch::{DeviceChoice, random, synchronize};
use optimizer::{AdamW, Config, Ema, EmaConfig};
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

fn benchmark(c: &mut Criterion, count: u64, shape: &[i64]) {
    let device = libtorch::resolve(DeviceChoice::Auto).expect("auto is always there");
    let new = |seed| random::normal(seed, shape).to_device(device).set_requires_grad(true);
    let parameters: Vec<(String, Tensor)> = (0..count).map(|i| (format!("p{i}"), new(i))).collect();
    let named = || parameters.iter().map(|(name, tensor)| (name.as_str(), tensor));
    for (_, tensor) in named() {
        tensor.square().sum(tensor.kind()).backward();
    }
    let mut adamw = AdamW::new(named(), &Config::default()).expect("the parameters are f32");
    let mut ema = Ema::new(named(), &EmaConfig::default()).expect("the parameters are f32");
    let mut group = c.benchmark_group(format!("{count} tensors of {shape:?} on {device:?}"));
    group.sample_size(10);
    group.bench_function("step", |b| {
        b.iter_custom(|n| time(device, n, || adamw.step(1e-6).expect("the gradients fit")));
    });
    group.bench_function("clip", |b| {
        b.iter_custom(|n| time(device, n, || drop(adamw.clip_grad_norm(1e9).expect("the gradients fit"))));
    });
    group.bench_function("average", |b| {
        b.iter_custom(|n| time(device, n, || ema.update().expect("the parameters fit")));
    });
    group.finish();
}

fn benches(c: &mut Criterion) {
    benchmark(c, 686, &[64]);
    benchmark(c, 32, &[1024, 1024]);
}

criterion_group!(optimizer, benches);
criterion_main!(optimizer);
