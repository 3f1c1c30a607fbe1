//! What must hold whatever the numbers, and what is said about parameters and files that do not fit.
#![allow(clippy::unwrap_used)]

use optimizer::{AdamW, Config, Ema, EmaConfig};
use tch::{Device, Kind, Tensor};
use weights::LoadError;

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn parameter(seed: u64, shape: &[i64]) -> Tensor {
    libtorch::random::normal(seed, shape).set_requires_grad(true)
}

fn set_gradient(p: &Tensor, gradient: &Tensor) {
    libtorch::clear_grads(&[p]).unwrap();
    (p * gradient).sum(Kind::Float).backward();
}

#[test]
fn without_gradient_and_decay_nothing_moves() {
    let p = parameter(1, &[3, 4]);
    let before = p.detach().copy();
    let mut adamw = AdamW::new([("p", &p)], &Config { weight_decay: 0.0, ..Config::default() }).unwrap();
    set_gradient(&p, &Tensor::zeros([3, 4], CPU));
    for _ in 0..5 {
        adamw.step(0.1).unwrap();
    }
    assert_eq!(p.detach(), before);
    assert_eq!(adamw.state("p").unwrap().step.double_value(&[]), 5.0);

    adamw.zero_grad().unwrap();
    adamw.step(0.1).unwrap();
    assert_eq!(adamw.state("p").unwrap().step.double_value(&[]), 5.0);
}

#[test]
fn only_the_direction_of_a_constant_gradient_matters() {
    let moved = [1e-3, 1e3].map(|scale| {
        let p = Tensor::zeros([4], CPU).set_requires_grad(true);
        let mut adamw = AdamW::new([("p", &p)], &Config { eps: 0.0, ..Config::default() }).unwrap();
        let gradient = Tensor::from_slice(&[1.0f32, -2.0, 3.0, -4.0]) * scale;
        for _ in 0..10 {
            set_gradient(&p, &gradient);
            adamw.step(1e-2).unwrap();
        }
        p.detach()
    });
    assert!(golden::relative_error(&moved[0], &moved[1]) < 1e-5);
    assert_eq!(moved[0].sign(), Tensor::from_slice(&[-1.0f32, 1.0, -1.0, 1.0]));
}

#[test]
fn the_layout_in_memory_makes_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    let run = |other_layout: bool| {
        let p = libtorch::random::normal(3, &[2, 3, 4, 5]);
        let p = if other_layout { p.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]) } else { p };
        let p = p.set_requires_grad(true);
        let mut adamw = AdamW::new([("p", &p)], &Config::default()).unwrap();
        for step in 0..4 {
            set_gradient(&p, &libtorch::random::normal(10 + step, &[2, 3, 4, 5]));
            adamw.step(1e-2).unwrap();
            adamw.save(&file).unwrap();
            adamw = AdamW::load([("p", &p)], &Config::default(), &file).unwrap();
        }
        p.detach()
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn clipping_leaves_small_gradients_alone() {
    let (p, q) = (parameter(1, &[3]), parameter(2, &[1]));
    let mut adamw = AdamW::new([("p", &p), ("q", &q)], &Config::default()).unwrap();
    assert_eq!(adamw.clip_grad_norm(1.0).unwrap().double_value(&[]), 0.0);
    set_gradient(&p, &Tensor::from_slice(&[2.0f32, 2.0, 4.0]));
    set_gradient(&q, &Tensor::from_slice(&[5.0f32]));
    assert_eq!(adamw.clip_grad_norm(8.0).unwrap().double_value(&[]), 7.0);
    assert_eq!((p.grad(), q.grad()), (Tensor::from_slice(&[2.0f32, 2.0, 4.0]), Tensor::from_slice(&[5.0f32])));
    let _norm = adamw.clip_grad_norm(0.7).unwrap();
    assert!(golden::relative_error(&q.grad(), &Tensor::from_slice(&[0.5f32])) < 1e-6);
}

#[test]
fn what_cannot_be_trained_is_named() {
    let (good, half) = (parameter(1, &[2]), Tensor::zeros([2], (Kind::BFloat16, Device::Cpu)));
    let message = |result: anyhow::Result<AdamW>| result.unwrap_err().to_string();
    let config = Config::default();
    let error = message(AdamW::new([("a.weight", &good), ("b.weight", &half)], &config));
    assert!(error.starts_with("the parameter b.weight is BFloat16, but only Float"), "{error}");
    let error = message(AdamW::new([("a", &good), ("a", &good)], &config));
    assert_eq!(error, "the parameter a is given twice");
    let error = message(AdamW::new([], &config));
    assert_eq!(error, "there is no parameter to train");
    let error = message(AdamW::new([("a", &good)], &Config { beta2: 1.0, ..config }));
    assert_eq!(error, "AdamW's beta2 is 1, but must be in 0..1");
    assert!(Ema::new([("a", &good)], &EmaConfig { decay: -0.1, warm_up: false }).is_err());
    assert!(Ema::new([("b.weight", &half)], &EmaConfig::default()).is_err());
}

#[test]
fn a_state_that_does_not_fit_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    let (a, b, other) = (parameter(1, &[2]), parameter(2, &[3]), parameter(3, &[4]));
    AdamW::new([("a", &a), ("b", &b)], &Config::default()).unwrap().save(&file).unwrap();

    let error = AdamW::load([("a", &other), ("c", &b)], &Config::default(), &file).unwrap_err();
    let problems = &error.downcast_ref::<LoadError>().unwrap().problems;
    let names: Vec<&str> = problems.iter().map(|(name, _)| name.as_str()).collect();
    let expected =
        ["a.exp_avg", "a.exp_avg_sq", "b.exp_avg", "b.exp_avg_sq", "b.step", "c.exp_avg", "c.exp_avg_sq", "c.step"];
    assert_eq!(names, expected);
    let text = format!("{error:#}");
    assert!(text.contains("not that of the parameters to train") && text.contains("expects [4]"), "{text}");

    // A file of weights is no file of averages, though it has the same names.
    weights::save(&file, [("a", &a)]).unwrap();
    let error = Ema::load([("a", &a)], &EmaConfig::default(), &file).unwrap_err().to_string();
    assert!(error.contains("does not say after how many updates"), "{error}");
}
