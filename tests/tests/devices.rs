//! The GPU computes what the CPU computes. Without a GPU, a normal state, this is ignored; with REQUIRE_CUDA=1 it fails.
#![allow(clippy::unwrap_used)]

use std::process::ExitCode;

use golden::{assert_close, fixtures};
use libtest_mimic::{Arguments, Completion, Trial};
use libtorch::{cuda_unavailable, random};
use sampling::{Pipeline, Request, Settings};
use tch::{Device, Kind};

/// Convolutions use TF32 on recent GPUs, whose mantissa has 10 bits.
const BOUND: f64 = 5e-3;

/// Not the usual harness, which cannot ignore a test for what is found out when it runs.
fn main() -> ExitCode {
    let required = std::env::var_os("REQUIRE_CUDA").is_some_and(|value| !value.is_empty());
    let trial = |name: &str, test: fn()| {
        Trial::ignorable_test(name, move || match cuda_unavailable() {
            None => {
                test();
                Ok(Completion::Completed)
            }
            Some(reason) if required => Err(format!("REQUIRE_CUDA is set, but {reason}").into()),
            Some(reason) => Ok(Completion::ignored_with(reason)),
        })
    };
    let trials = vec![trial("a_gpu_agrees_with_the_cpu", a_gpu_agrees_with_the_cpu)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn a_gpu_agrees_with_the_cpu() {
    let load = |device| Pipeline::from_folder(&fixtures().join("tiny-sd21"), (Kind::Float, device)).unwrap();
    let [cpu, gpu] = [Device::Cpu, Device::Cuda(0)].map(load);
    let hidden = [&cpu, &gpu].map(|pipeline| pipeline.encode_prompts(&["a photo of a cat"]).unwrap().hidden_states);
    assert_close("text encoder", &hidden[1].to_device(Device::Cpu), &hidden[0], BOUND);

    let settings = Settings { steps: 10, ..cpu.default_settings() };
    let latents = [&cpu, &gpu]
        .map(|pipeline| pipeline.denoise(&[Request::new("a photo of a cat", 0)], &settings, &mut |_| {}).unwrap());
    assert_close("latents", &latents[1].to_device(Device::Cpu), &latents[0], 10.0 * BOUND);

    let z = random::normal(1, &[1, 4, 8, 8]);
    let images = [(&cpu, Device::Cpu), (&gpu, Device::Cuda(0))]
        .map(|(pipeline, device)| pipeline.vae.decode(&z.to_device(device)).unwrap().to_device(Device::Cpu));
    assert_close("VAE decoder", &images[1], &images[0], BOUND);
}
