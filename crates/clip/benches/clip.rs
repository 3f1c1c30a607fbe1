//! Texts, images and their preparation: tiny models, Stable Diffusion 1.5's text encoder, ViT-B/32.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::time::Instant;

use clip::{ClipConfig, ClipModel, ImageProcessor, Resampler, TextConfig, VisionConfig};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use libtorch::{DeviceChoice, random, synchronize};
use tch::{Device, Kind};
use weights::Random;

fn bench(group: &mut BenchmarkGroup<WallTime>, device: Device, name: &str, run: &dyn Fn()) {
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
}

fn models(criterion: &mut Criterion) {
    let device = libtorch::resolve(DeviceChoice::Auto).unwrap();
    let tiny = ClipConfig {
        text_config: TextConfig { hidden_size: 32, num_attention_heads: 4, vocab_size: 1200, ..TextConfig::default() },
        vision_config: VisionConfig { hidden_size: 32, num_attention_heads: 4, ..VisionConfig::default() },
        projection_dim: 24,
    };
    // Stable Diffusion 1.5's text encoder beside the image encoder of ViT-B/32.
    let real = ClipConfig { text_config: TextConfig::sd15(), ..ClipConfig::vit_b32() };
    for (name, config) in [("tiny", tiny), ("real", real)] {
        let new = |vs: &weights::Scope| ClipModel::new(vs, &config);
        let (model, _) = weights::build(&Random { seed: 0 }, (Kind::Float, device), new).unwrap();
        let ids = random::integers(1, 1000, &[2, 77]);
        let pixel_values = random::normal(2, &[2, 3, 224, 224]).to_device(device);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        let text = || drop(black_box(model.text_model().forward(&ids).unwrap()));
        bench(&mut group, device, "2 texts", &text);
        let image = || drop(black_box(model.image_features(&pixel_values).unwrap()));
        bench(&mut group, device, "2 images", &image);
        group.finish();
    }
}

fn preparation(criterion: &mut Criterion) {
    let image = random::integers(3, 256, &[3, 512, 512]).to_kind(Kind::Uint8);
    let mut group = criterion.benchmark_group("512px to 224px");
    for (name, resampler) in [("torchvision", Resampler::Torchvision), ("pillow", Resampler::Pillow)] {
        let processor = ImageProcessor { resampler, ..ImageProcessor::default() };
        let prepare = || drop(black_box(processor.process(&image).unwrap()));
        bench(&mut group, Device::Cpu, name, &prepare);
    }
    group.finish();
}

criterion_group!(benches, models, preparation);
criterion_main!(benches);
