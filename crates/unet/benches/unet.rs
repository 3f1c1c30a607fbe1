//! `cargo bench -p attndreambooth-unet`: one forward pass, watched and not, and a backward pass.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use golden::{Formula, fixtures};
use libtorch::{DeviceChoice, random, synchronize};
use tch::{Device, Kind, Tensor};
use unet::{AttentionMaps, Config, UNet};

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

fn benchmark(c: &mut Criterion, name: &str, config: &Config, side: i64) {
    let to = (Kind::Float, libtorch::resolve(DeviceChoice::Auto).expect("auto is always there"));
    let (unet, _) = weights::build(&Formula, to, |vs| UNet::new(vs, config)).expect("the config is valid");
    let latents = random::normal(1, &[1, config.in_channels, side, side]).to_device(to.1);
    let text = random::normal(2, &[1, 77, config.cross_attention_dim]).to_device(to.1);
    let timesteps = Tensor::from_slice(&[501_i64]).to_device(to.1);
    let mut group = c.benchmark_group(format!("{name} {side}x{side} {:?}", to.1));
    group.sample_size(10);
    let forward = || unet.forward(&latents, &timesteps, &text, None).expect("the inputs fit");
    group.bench_function("forward", |b| {
        b.iter_custom(|n| tch::no_grad(|| time(to.1, n, || drop(forward()))));
    });
    let watched = || {
        let mut maps = AttentionMaps::new([5, 6]);
        unet.forward(&latents, &timesteps, &text, Some(&mut maps)).expect("the inputs fit")
    };
    group.bench_function("forward, two tokens watched", |b| {
        b.iter_custom(|n| tch::no_grad(|| time(to.1, n, || drop(watched()))));
    });
    let text_grad = text.copy().set_requires_grad(true);
    let both = || {
        let output = unet.forward(&latents, &timesteps, &text_grad, None).expect("the inputs fit");
        output.sum(Kind::Float).backward();
    };
    group.bench_function("forward and backward to the text", |b| b.iter_custom(|n| time(to.1, n, both)));
    group.finish();
}

fn benches(c: &mut Criterion) {
    let tiny = weights::read_config(&fixtures().join("tiny-sd21/unet/config.json")).expect("the fixture is there");
    benchmark(c, "tiny", &tiny, 16);
    benchmark(c, "sd21-base", &Config::sd21_base(), 16);
}

criterion_group!(unet, benches);
criterion_main!(unet);
