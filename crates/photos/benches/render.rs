//! Rendering a crop of a small photo and of a phone's.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use image::{Rgb, RgbImage};
use photos::AugmentedCrop;

fn render(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("render 512px");
    group.sample_size(10);
    for (name, width, height) in [("1 MP", 1152, 864), ("12 MP", 4000, 3000)] {
        let photo = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, (x * y) as u8]));
        for (what, angle) in [("", None), (" rotated", Some(30.0))] {
            let crop = AugmentedCrop { angle, flip: true, left: 20, top: 0, width: 512, height: 512 };
            group.bench_function(format!("{name}{what}"), |bencher| bencher.iter(|| crop.render(black_box(&photo))));
        }
    }
    group.finish();
}

criterion_group!(benches, render);
criterion_main!(benches);
