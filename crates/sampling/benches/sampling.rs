//! Time of a whole image with the tiny pipeline: what is not the models' own work.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use golden::fixtures;
use sampling::{Pipeline, Request, Settings};
use tch::{Device, Kind};

fn sampling(criterion: &mut Criterion) {
    let folder = fixtures().join("tiny-sd21");
    let to = (Kind::Float, Device::Cpu);
    criterion.bench_function("load tiny-sd21", |b| b.iter(|| Pipeline::from_folder(&folder, to).unwrap()));
    let pipeline = Pipeline::from_folder(&folder, to).unwrap();
    let settings = Settings { steps: 10, ..pipeline.default_settings() };
    // Images come back to the CPU, so the device has finished when `generate` returns.
    criterion.bench_function("generate tiny-sd21, 10 steps", |b| {
        b.iter(|| pipeline.generate(&[Request::new("a cat", 0)], &settings, &mut |_| {}).unwrap());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = sampling
}
criterion_main!(benches);
