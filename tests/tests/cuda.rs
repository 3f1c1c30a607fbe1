//! A CUDA device computes what the CPU computes: the machine's GPU, else the stand-in for one.
#![allow(clippy::unwrap_used)]

use golden::{assert_close, fixtures};
use libtorch::{DeviceChoice, cuda_unavailable, random};
use sampling::{Pipeline, Request, Settings};
use tch::{Device, Kind};

#[test]
fn a_cuda_device_passes_these_tests() {
    cuda_standin::test_again("a_cuda_device_passes_these_tests", cuda_unavailable());
}

/// What is wrong with LibTorch or the driver must not look as if there were no GPU.
#[test]
fn auto_takes_a_gpu_that_is_there() {
    let expected = cuda_standin::gpu_is_visible() || cuda_standin::is_here();
    let device = DeviceChoice::Auto.resolve().unwrap();
    assert_eq!(device != Device::Cpu, expected, "{}", cuda_unavailable().unwrap_or("a device out of nowhere"));
}

/// The latents of each scheduler, the text encoder and the VAE.
#[test]
fn every_scheduler_leads_to_the_cpus_latents() {
    let device = DeviceChoice::Auto.resolve().unwrap();
    if device == Device::Cpu {
        // The first of two rounds; `a_cuda_device_passes_these_tests` sees to the second.
        return;
    }
    libtorch::set_tf32(false).unwrap();
    tch::set_num_threads(1);
    // On the stand-in only layouts in memory differ, in bf16 also where the CPU's attention has a way of its own.
    for (kind, bound) in [(Kind::Float, 1e-3), (Kind::BFloat16, 5e-2)] {
        let load = |device| Pipeline::from_folder(&fixtures().join("tiny-sd21"), (kind, device)).unwrap();
        let [cpu, other] = [Device::Cpu, device].map(load);
        let hidden = [&cpu, &other].map(|pipeline| pipeline.encode_prompts(&["a photo of a cat"]).unwrap());
        assert_eq!(hidden[1].device(), device);
        assert_close(&format!("{kind:?} text encoder"), &hidden[1].to_device(Device::Cpu), &hidden[0], bound);
        let z = random::normal(1, &[1, 4, 8, 8]).to_kind(kind);
        let images = [(&cpu, Device::Cpu), (&other, device)]
            .map(|(pipeline, device)| pipeline.vae.decode(&z.to_device(device)).unwrap().to_device(Device::Cpu));
        assert_close(&format!("{kind:?} VAE decoder"), &images[1], &images[0], bound);
        for name in ["ddpm", "ddim", "pndm", "dpm-solver++", "euler", "euler-ancestral"] {
            let scheduler = Some(name.parse().unwrap());
            let settings = Settings { steps: 2, height: 64, width: 64, scheduler, ..cpu.default_settings() };
            let requests = [Request::new("a photo of a cat", 0)];
            let latents = [&cpu, &other].map(|pipeline| pipeline.denoise(&requests, &settings, &mut |_| {}).unwrap());
            assert_close(&format!("{kind:?} {name}"), &latents[1].to_device(Device::Cpu), &latents[0], bound);
        }
    }
}
