//! Features of image files of 512 pixels: decoding, preparation and the image encoder of ViT-B/32, together.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may panic")]

use std::path::Path;

use clip::{ClipConfig, ClipModel, ImageProcessor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evaluation::{FeatureExtractor, ImageFile};
use libtorch::DeviceChoice;
use tch::Kind;
use tokenizer::Tokenizer;
use weights::Random;

const IMAGES: usize = 64;

/// Images as compressible as what a model draws: waves with a little noise.
fn images(folder: &Path) -> Vec<ImageFile> {
    let image = |i: usize| {
        let path = folder.join(format!("{i}.png"));
        let channel = |x: u32, y: u32, c: f64| {
            let wave = (f64::from(x) / 40.0 + c).sin() + (f64::from(y) / 60.0 + i as f64).cos();
            (128.0 + 50.0 * wave + f64::from((x * 7919 + y * 104_729) % 13)) as u8
        };
        let pixels = image::RgbImage::from_fn(512, 512, |x, y| {
            [channel(x, y, 0.0), channel(x, y, 1.0), channel(x, y, 2.0)].into()
        });
        pixels.save(&path).unwrap();
        ImageFile::new(path)
    };
    (0..IMAGES).map(image).collect()
}

fn features(criterion: &mut Criterion) {
    let device = libtorch::resolve(DeviceChoice::Auto).unwrap();
    let config = ClipConfig::vit_b32();
    let new = |vs: &weights::Scope| ClipModel::new(vs, &config);
    let (model, _) = weights::build(&Random { seed: 0 }, (Kind::Float, device), new).unwrap();
    let tokenizer = Tokenizer::load(golden::fixtures().join("tokenizer/tiny")).unwrap();
    let name = runs::ClipName { name: "ViT-B/32".to_owned(), folder: "random".into() };
    let extractor = FeatureExtractor::new(name, model, ImageProcessor::default(), tokenizer, device).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let images = images(folder.path());
    let mut group = criterion.benchmark_group("features of 64 files");
    group.sample_size(10).throughput(Throughput::Elements(IMAGES as u64));
    group.bench_function("ViT-B/32, 512 px", |bencher| {
        bencher.iter(|| extractor.each_batch(&images, &mut |_| Ok(())).unwrap());
    });
    group.finish();
}

criterion_group!(benches, features);
criterion_main!(benches);
