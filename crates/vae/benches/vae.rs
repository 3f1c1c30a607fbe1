//! Encoding and decoding: a tiny model, and Stable Diffusion's at a size that a CPU can bear.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use libtorch::{DeviceChoice, random, synchronize};
use tch::Kind;
use vae::{AutoencoderKl, Config};
use weights::Random;

fn vae(criterion: &mut Criterion) {
    let device = libtorch::resolve(DeviceChoice::Auto).unwrap();
    let tiny = Config { block_out_channels: vec![8, 8, 16, 16], norm_num_groups: 4, ..Config::sd21() };
    for (name, config, size) in [("tiny", tiny, 64), ("sd21", Config::sd21(), 128)] {
        let new = |vs: &weights::Scope| AutoencoderKl::new(vs, &config);
        let (model, _) = weights::build(&Random { seed: 0 }, (Kind::Float, device), new).unwrap();
        let images = random::normal(1, &[1, 3, size, size]).to_device(device);
        let latents = random::normal(2, &[1, 4, size / 8, size / 8]).to_device(device);
        let mut group = criterion.benchmark_group(format!("{name} {size}px"));
        group.sample_size(10);
        let mut bench = |name: &str, run: &dyn Fn()| {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    synchronize(device);
                    let start = Instant::now();
                    for _ in 0..iterations {
                        tch::no_grad(run);
                    }
                    synchronize(device);
                    start.elapsed()
                });
            });
        };
        bench("encode", &|| drop(black_box(model.encode(&images).unwrap())));
        bench("decode", &|| drop(black_box(model.decode(&latents).unwrap())));
        group.finish();
    }
}

criterion_group!(benches, vae);
criterion_main!(benches);
