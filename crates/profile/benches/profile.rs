//! `cargo bench -p attndreambooth-profile`: what a span costs, without a recording and with one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tracing::trace_span;

/// Times `iterations` spans, each within another.
fn spans(iterations: u64) -> Duration {
    let _outer = trace_span!("bench/outer").entered();
    let start = Instant::now();
    for i in 0..iterations {
        let _span = black_box(trace_span!("bench/inner", number = black_box(i % 4)).entered());
    }
    start.elapsed()
}

fn benches(c: &mut Criterion) {
    profile::install("warn", |_| ()).expect("nobody else installs");
    let mut group = c.benchmark_group("span");
    group.bench_function("off", |b| b.iter_custom(spans));
    group.bench_function("on", |b| {
        b.iter_custom(|iterations| {
            let _recording = profile::start(None).expect("benchmarks run one after the other");
            spans(iterations)
        });
    });
    group.finish();
}

criterion_group!(profile, benches);
criterion_main!(profile);
