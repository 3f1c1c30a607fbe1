//! The GPU's maps are the CPU's. Without a GPU, a normal state, this is ignored; with REQUIRE_CUDA=1 it fails.
#![allow(clippy::unwrap_used)]

use std::process::ExitCode;

use golden::assert_close;
use heatmaps::{Config, HeatMapRecorder};
use libtest_mimic::{Arguments, Completion, Trial};
use libtorch::cuda_unavailable;
use tch::{Device, Kind, Tensor};
use unet::{AttentionObserver, CrossAttentionLayer};

/// Not the usual harness, which cannot ignore a test for what is found out when it runs.
fn main() -> ExitCode {
    let required = std::env::var_os("REQUIRE_CUDA").is_some_and(|value| !value.is_empty());
    let trial = Trial::ignorable_test("gpu_maps_are_the_cpus", move || match cuda_unavailable() {
        None => {
            gpu_maps_are_the_cpus();
            Ok(Completion::Completed)
        }
        Some(reason) if required => Err(format!("REQUIRE_CUDA is set, but {reason}").into()),
        Some(reason) => Ok(Completion::ignored_with(reason)),
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn gpu_maps_are_the_cpus() {
    const LATENTS: (i64, i64) = (16, 24);
    const POSITIONS: usize = 5;
    // Heads and factor of each layer.
    let layers: [(i64, i64); 4] = [(2, 1), (4, 2), (8, 4), (8, 8)];
    let maps = |device: Device| {
        let mut recorder = HeatMapRecorder::new(Config::default(), POSITIONS, LATENTS, 1).unwrap();
        for pass in 0..2 {
            for (index, (heads, factor)) in layers.into_iter().enumerate() {
                let (height, width) = (LATENTS.0 / factor, LATENTS.1 / factor);
                let shape = [2, POSITIONS as i64, heads, height * width];
                let scores: Tensor = libtorch::random::normal(8 + pass + 100 * index as u64, &shape);
                let map = scores.softmax(1, Kind::Float).to_device(device);
                recorder.observe(&CrossAttentionLayer { name: "down_blocks", index, heads, height, width }, &map);
            }
        }
        recorder.finish().unwrap().maps.to_device(Device::Cpu)
    };
    assert_close("cuda", &maps(Device::Cuda(0)), &maps(Device::Cpu), 1e-5);
}
