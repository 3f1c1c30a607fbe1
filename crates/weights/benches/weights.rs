//! Reading and writing 256 MiB of weights, beside a plain copy of as many bytes.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor};
use weights::{Archive, Init};

const TENSORS: i64 = 64;
const ELEMENTS: i64 = 1 << 20;
const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn weights(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors: Vec<(String, Tensor)> =
        (0..TENSORS).map(|i| (format!("layer.{i:02}"), Tensor::ones([ELEMENTS], F32))).collect();
    let save = || weights::save(&path, tensors.iter().map(|(name, tensor)| (name, tensor))).unwrap();
    save();

    let mut group = criterion.benchmark_group("256 MiB");
    group.sample_size(10).throughput(Throughput::Bytes((TENSORS * ELEMENTS * 4) as u64));
    group.bench_function("load f32", |b| b.iter(|| load(&path, Kind::Float)));
    group.bench_function("load f32 as bf16", |b| b.iter(|| load(&path, Kind::BFloat16)));
    group.bench_function("save", |b| b.iter(save));
    let source = vec![1u8; (TENSORS * ELEMENTS * 4) as usize];
    group.bench_function("plain copy", |b| b.iter(|| source.to_vec()));
    group.finish();
}

fn load(path: &std::path::Path, kind: Kind) -> Vec<Tensor> {
    let archive = Archive::open(path).unwrap();
    let names = archive.shapes().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    let take = |vs: &weights::Scope| Ok(names.iter().map(|n| vs.get(n, &[ELEMENTS], Init::Const(0.0))).collect());
    weights::build(&archive, (kind, Device::Cpu), take).unwrap().0
}

criterion_group!(benches, weights);
criterion_main!(benches);
