//! A CUDA device computes what the CPU computes: the machine's GPU, else the stand-in for one.
#![allow(clippy::unwrap_used)]

use golden::{assert_close, fixtures, relative_error};
use libtorch::{DeviceChoice, cuda_unavailable, random};
use sampling::{Pipeline, Request, Settings};
use tch::{Device, Kind, Tensor};

#[test]
fn a_cuda_device_passes_these_tests() {
    cuda_standin::test_again("a_cuda_device_passes_these_tests", cuda_unavailable());
}

/// What is wrong with LibTorch or the driver must not look as if there were no GPU.
#[test]
fn auto_takes_a_gpu_that_is_there() {
    let expected = cuda_standin::gpu_is_visible() || cuda_standin::is_here();
    let device = libtorch::resolve(DeviceChoice::Auto).unwrap();
    assert_eq!(device != Device::Cpu, expected, "{}", cuda_unavailable().unwrap_or("a device out of nowhere"));
}

/// The latents of each scheduler, the text encoder and the VAE.
#[test]
fn every_scheduler_leads_to_the_cpus_latents() {
    let device = libtorch::resolve(DeviceChoice::Auto).unwrap();
    if device == Device::Cpu {
        // The first of two rounds; `a_cuda_device_passes_these_tests` sees to the second.
        return;
    }
    libtorch::set_tf32(false).unwrap();
    tch::set_num_threads(1);
    let exact = results(Kind::Float, Device::Cpu);
    for ((name, ours), (_, exact)) in results(Kind::Float, device).iter().zip(&exact) {
        assert_close(name, ours, exact, 1e-4);
    }
    // In bf16 every operation rounds, and which there are differs a little: as far from the exact numbers as the CPU's.
    let roughly = [device, Device::Cpu].map(|device| results(Kind::BFloat16, device));
    for ((name, exact), ((_, ours), (_, cpus))) in exact.iter().zip(roughly[0].iter().zip(&roughly[1])) {
        let [ours, cpus] = [ours, cpus].map(|numbers| relative_error(numbers, exact));
        assert!(ours <= 2.0 * cpus && cpus < 0.5, "{name}: {ours:.1e} from the exact numbers, the CPU {cpus:.1e}");
    }
}

/// What a model computes on `device`, by name, on the host.
fn results(kind: Kind, device: Device) -> Vec<(&'static str, Tensor)> {
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), (kind, device)).unwrap();
    let hidden = pipeline.encode_prompts(&["a photo of a cat"]).unwrap().hidden_states;
    let z = random::normal(1, &[1, 4, 8, 8]).to_device(device).to_kind(kind);
    let image = pipeline.vae.decode(&z).unwrap();
    let latents = ["ddpm", "ddim", "pndm", "dpm-solver++", "euler", "euler-ancestral"].map(|name| {
        let scheduler = Some(name.parse().unwrap());
        let settings = Settings { steps: 2, height: 64, width: 64, scheduler, ..pipeline.default_settings() };
        let requests = [Request::new("a photo of a cat", 0)];
        (name, pipeline.denoise(&requests, &settings, &mut |_| {}).unwrap())
    });
    let all = [("text encoder", hidden), ("VAE decoder", image)].into_iter().chain(latents);
    all.map(|(name, tensor)| {
        assert_eq!(tensor.device(), device, "{name}");
        (name, tensor.to_device(Device::Cpu))
    })
    .collect()
}
