//! One step of every scheduler on the latents of a 512 px batch: `cargo bench -p attndreambooth-scheduler`.

use criterion::{Criterion, criterion_group, criterion_main};
use scheduler::{SchedulerConfig, SchedulerKind};
use tch::{Device, Kind, Tensor};

fn steps(criterion: &mut Criterion) {
    let config = SchedulerConfig { skip_prk_steps: true, clip_sample: false, ..SchedulerConfig::default() };
    let sample = Tensor::ones([4, 4, 64, 64], (Kind::Float, Device::Cpu));
    let mut group = criterion.benchmark_group("step");
    for kind in SchedulerKind::ALL {
        let Ok(mut scheduler) = config.build(kind, 50) else { continue };
        group.bench_function(kind.short_name(), |bencher| {
            bencher.iter(|| scheduler.step(0, &sample, &sample, Some(&sample)));
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
