//! What the C++ shim computes, against closed forms and tch; on the GPU too where there is one.
#![allow(clippy::unwrap_used)]

use libtorch::{AdamWRule, AdamWSlot, DeviceChoice, random};
use tch::{Device, Kind, Tensor};

fn devices() -> Vec<Device> {
    let mut devices = vec![Device::Cpu, libtorch::resolve(DeviceChoice::Auto).unwrap()];
    devices.dedup();
    devices
}

const RULE: AdamWRule = AdamWRule { learning_rate: 1e-2, beta1: 0.9, beta2: 0.999, weight_decay: 0.1, eps: 1e-8 };

struct Slot([Tensor; 5]);

impl Slot {
    fn new(seed: u64, shape: &[i64], device: Device) -> Self {
        let zeros = || Tensor::zeros(shape, (Kind::Float, device));
        let parameter = random::normal(seed, shape).to_device(device).set_requires_grad(true);
        let gradient = random::normal(seed + 1000, shape).to_device(device);
        Self([parameter, gradient, zeros(), zeros(), Tensor::zeros([], (Kind::Float, device))])
    }

    fn lend(&self) -> AdamWSlot<'_> {
        let [parameter, gradient, exp_avg, exp_avg_sq, step] = &self.0;
        AdamWSlot { parameter, gradient, exp_avg, exp_avg_sq, step }
    }
}

fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    if a.numel() == 0 { 0.0 } else { (a - b).abs().max().double_value(&[]) }
}

/// From zero moments the bias corrections cancel, and what is left is p (1 - lr wd) - lr g / (|g| + eps).
#[test]
fn the_first_step_is_the_sign_of_the_gradient() {
    for device in devices() {
        let shapes: [&[i64]; 5] = [&[3, 5, 7], &[1], &[], &[0, 4], &[100, 101]];
        let slots: Vec<Slot> = shapes.iter().zip(0..).map(|(shape, i)| Slot::new(i, shape, device)).collect();
        let before: Vec<Tensor> = slots.iter().map(|slot| slot.0[0].detach().copy()).collect();
        libtorch::fused_adamw(&slots.iter().map(Slot::lend).collect::<Vec<_>>(), &RULE, None).unwrap();
        for (slot, before) in slots.iter().zip(before) {
            let [parameter, gradient, exp_avg, exp_avg_sq, step] = &slot.0;
            let expected = before * (1.0 - 1e-3) - gradient / (gradient.abs() + 1e-8) * 1e-2;
            assert!(max_difference(&parameter.detach(), &expected) < 1e-6);
            assert!(max_difference(exp_avg, &(gradient * 0.1)) < 1e-6);
            assert!(max_difference(exp_avg_sq, &(gradient * gradient * 1e-3)) < 1e-7);
            assert_eq!(step.double_value(&[]), 1.0);
            assert!(parameter.requires_grad());
        }
    }
}

#[test]
fn a_step_may_be_skipped_by_a_number_that_is_on_the_device() {
    for device in devices() {
        let (taken, skipped) = (Slot::new(1, &[40, 60], device), Slot::new(1, &[40, 60], device));
        let before: Vec<Tensor> = skipped.0.iter().map(|tensor| tensor.detach().copy()).collect();
        for (slot, skip) in [(&taken, 0.0f32), (&skipped, 1.0)] {
            let skip = Tensor::from(skip).to_device(device);
            libtorch::fused_adamw(&[slot.lend()], &RULE, Some(&skip)).unwrap();
        }
        assert!(before.iter().zip(&skipped.0).all(|(before, after)| before == &after.detach()));
        assert_eq!(taken.0[4].double_value(&[]), 1.0);
        let plain = Slot::new(1, &[40, 60], device);
        libtorch::fused_adamw(&[plain.lend()], &RULE, None).unwrap();
        assert!(plain.0.iter().zip(&taken.0).all(|(plain, taken)| plain == taken));

        let before = plain.0[0].detach().copy();
        for shape in [[1], [2]] {
            let wrong = Tensor::zeros(shape, (Kind::Float, device));
            let error = libtorch::fused_adamw(&[plain.lend()], &RULE, Some(&wrong)).unwrap_err().to_string();
            assert!(error.contains("skipped is not one Float"), "{error}");
        }
        assert_eq!(plain.0[0].detach(), before);
    }
}

#[test]
fn a_gradient_may_have_another_layout() {
    for device in devices() {
        let (plain, mut other) = (Slot::new(1, &[4, 6], device), Slot::new(1, &[4, 6], device));
        other.0[1] = other.0[1].transpose(0, 1).contiguous().transpose(0, 1);
        for slot in [&plain, &other] {
            libtorch::fused_adamw(&[slot.lend()], &RULE, None).unwrap();
        }
        assert_eq!(plain.0[0], other.0[0]);
        assert_eq!(plain.0[3], other.0[3]);
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let good = Slot::new(1, &[4, 6], Device::Cpu);
    let before = good.0[0].detach().copy();
    let wrong = |index: usize, tensor: Tensor| {
        let mut slot = Slot::new(2, &[4, 6], Device::Cpu);
        slot.0[index] = tensor;
        let error = libtorch::fused_adamw(&[good.lend(), slot.lend()], &RULE, None).unwrap_err().to_string();
        assert!(error.contains("parameter 1") && !error.contains('\n'), "{error}");
        error
    };
    let cpu = (Kind::Float, Device::Cpu);
    assert!(wrong(0, Tensor::zeros([4, 6], (Kind::BFloat16, Device::Cpu))).contains("BFloat16"));
    assert!(wrong(0, Tensor::zeros([6], cpu).expand([4, 6], false)).contains("overlaps"));
    assert!(wrong(1, Tensor::zeros([6, 4], cpu)).contains("[6, 4]"));
    assert!(wrong(2, Tensor::zeros([6, 4], cpu).transpose(0, 1)).contains("strides"));
    wrong(3, Tensor::new());
    wrong(4, Tensor::zeros([2], cpu));
    assert_eq!(good.0[0].detach(), before);
    assert_eq!(good.0[4].double_value(&[]), 0.0);
    libtorch::fused_adamw(&[], &RULE, None).unwrap();
}

#[test]
fn the_norm_of_all_gradients_is_that_of_their_concatenation() {
    for device in devices() {
        let shapes: [&[i64]; 4] = [&[1000, 300], &[1], &[], &[17]];
        let tensors: Vec<Tensor> =
            shapes.iter().zip(0..).map(|(shape, i)| random::normal(i, shape).to_device(device)).collect();
        let lent: Vec<&Tensor> = tensors.iter().collect();
        let flat = Tensor::cat(&tensors.iter().map(|t| t.reshape([-1])).collect::<Vec<_>>(), 0);
        let expected = flat.to_kind(Kind::Double).norm().double_value(&[]);
        let norm = libtorch::grad_norm(&lent).unwrap();
        assert_eq!((norm.size(), norm.kind(), norm.device()), (vec![], Kind::Float, device));
        assert!((norm.double_value(&[]) / expected - 1.0).abs() < 1e-6);

        libtorch::scale_all(&lent, &norm.reciprocal()).unwrap();
        assert!((libtorch::grad_norm(&lent).unwrap().double_value(&[]) - 1.0).abs() < 1e-6);
    }
    assert!(libtorch::grad_norm(&[]).is_err());
}

#[test]
fn a_cleared_gradient_is_gone_and_comes_back() {
    let x = Tensor::from_slice(&[2.0f32, 3.0]).set_requires_grad(true);
    for _ in 0..2 {
        (&x * &x).sum(Kind::Float).backward();
        assert_eq!(x.grad(), Tensor::from_slice(&[4.0f32, 6.0]));
        libtorch::clear_grads(&[&x]).unwrap();
        assert!(!x.grad().defined());
    }
}

#[test]
fn the_switches_can_be_turned() {
    for on in [true, false] {
        libtorch::set_deterministic(on).unwrap();
        // Where an index comes twice, it is open which value wins: LibTorch refuses it to who wants the same each time.
        let index = Tensor::from_slice(&[0i64, 1, 0]);
        let mut numbers = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let put = libtorch::catch(|| _ = numbers.put_(&index, &random::normal(1, &[3]), false));
        assert_eq!(put.is_err(), on);
    }
    for device in devices() {
        let a = random::normal(1, &[256, 256]).to_device(device);
        let [rough, exact] = [true, false].map(|on| {
            libtorch::set_tf32(on).unwrap();
            a.matmul(&a)
        });
        // Only a GPU has such numbers.
        assert_eq!(max_difference(&rough, &exact) > 0.0, device != Device::Cpu);
    }
}

#[test]
fn peak_memory_grows_with_a_tensor() {
    for device in devices() {
        libtorch::reset_peak_memory(device).unwrap();
        let before = libtorch::peak_memory(device).unwrap();
        drop(Tensor::ones([32 << 20], (Kind::Float, device)));
        let grown = libtorch::peak_memory(device).unwrap() - before;
        // Other tests may grow or free at the same time.
        assert!(grown > 100 << 20, "{grown}");
        libtorch::release_cached_memory(device).unwrap();
    }
    if libtorch::cuda_unavailable().is_some() {
        let error = libtorch::peak_memory(Device::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("CUDA") && !error.contains("ASSERT"), "{error}");
    }
}

#[test]
fn a_cuda_device_passes_these_tests() {
    cuda_standin::test_again("a_cuda_device_passes_these_tests", libtorch::cuda_unavailable());
}
