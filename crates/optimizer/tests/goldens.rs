//! Whole trajectories of `torch.optim.AdamW`, `clip_grad_norm_` and diffusers' `EMAModel`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use golden::{Formula, Golden, assert_close, fixtures};
use optimizer::{AdamW, Config, Ema, EmaConfig};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use weights::{Init, Source};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
const TOLERANCE: f64 = 1e-6;

/// fixtures/optimizer/cases.json
#[derive(Deserialize)]
struct About {
    shapes: BTreeMap<String, Vec<i64>>,
    skipped: BTreeMap<String, Vec<usize>>,
    kept: Vec<usize>,
    ema: BTreeMap<String, f64>,
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    lr: Vec<f64>,
    max_norm: Option<f64>,
    #[serde(flatten)]
    config: Config,
}

fn about() -> About {
    serde_json::from_str(&fs::read_to_string(fixtures().join("optimizer/cases.json")).unwrap()).unwrap()
}

fn fill(name: &str, shape: &[i64]) -> Tensor {
    Formula.fetch(name, shape, Init::Const(0.0), CPU).unwrap()
}

/// The parameters, and what gives them the gradients of a step.
struct Run<'a> {
    about: &'a About,
    parameters: BTreeMap<String, Tensor>,
}

impl<'a> Run<'a> {
    fn new(about: &'a About) -> Self {
        let new = |(name, shape): (&String, &Vec<i64>)| (name.clone(), fill(name, shape).set_requires_grad(true));
        Self { about, parameters: about.shapes.iter().map(new).collect() }
    }

    fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.parameters.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The gradient of (p · c).sum() is c.
    fn backward(&self, step: usize) {
        for (name, p) in self.named() {
            if !self.about.skipped.get(name).is_some_and(|steps| steps.contains(&step)) {
                let gradient = fill(&format!("{name}.{step}"), &p.size()) + p.detach() * 0.1;
                (p * gradient).sum(Kind::Float).backward();
            }
        }
    }

    fn step(&self, adamw: &mut AdamW, case: &Case, step: usize) -> Option<Tensor> {
        adamw.zero_grad().unwrap();
        self.backward(step);
        let norm = case.max_norm.map(|max_norm| adamw.clip_grad_norm(max_norm).unwrap());
        adamw.step(case.lr[step - 1]).unwrap();
        norm
    }
}

#[test]
fn trajectories_equal_pythons() {
    let about = about();
    let golden = Golden::open("optimizer/adamw.safetensors");
    for (name, case) in &about.cases {
        let run = Run::new(&about);
        let mut adamw = AdamW::new(run.named(), &case.config).unwrap();
        let mut ema = Ema::new(run.named(), &EmaConfig { decay: about.ema["decay"], warm_up: true }).unwrap();
        let mut norms = Vec::new();
        for step in 1..=case.lr.len() {
            norms.extend(run.step(&mut adamw, case, step));
            ema.update().unwrap();
            if !about.kept.contains(&step) {
                continue;
            }
            for ((parameter, tensor), (_, average)) in run.named().zip(ema.averages()) {
                let prefix = format!("{name}.{step}.{parameter}");
                let state = adamw.state(parameter).unwrap();
                golden.assert_close(&prefix, tensor, TOLERANCE);
                golden.assert_close(&format!("{prefix}.average"), average, TOLERANCE);
                if golden.names().any(|name| name == format!("{prefix}.exp_avg")) {
                    golden.assert_close(&format!("{prefix}.exp_avg"), state.exp_avg, TOLERANCE);
                    golden.assert_close(&format!("{prefix}.exp_avg_sq"), state.exp_avg_sq, TOLERANCE);
                    golden.assert_close(&format!("{prefix}.step"), state.step, 0.0);
                } else {
                    // torch has no state for a parameter that never had a gradient.
                    assert_eq!(*tensor, fill(parameter, &tensor.size()));
                    assert_eq!(state.step.double_value(&[]), 0.0);
                }
            }
        }
        if case.max_norm.is_some() {
            let norms = Tensor::stack(&norms, 0);
            assert!(norms.max().double_value(&[]) > 1.0, "nothing is clipped");
            golden.assert_close(&format!("{name}.norms"), &norms, TOLERANCE);
        }
    }
}

#[test]
fn a_loaded_run_goes_on_with_the_same_bits() {
    let about = about();
    let folder = tempfile::tempdir().unwrap();
    let (state, average) = (folder.path().join("state.safetensors"), folder.path().join("average.safetensors"));
    for case in about.cases.values() {
        let steps = case.lr.len();
        let run = |stop: Option<usize>| {
            let run = Run::new(&about);
            let config = EmaConfig { decay: 0.9, warm_up: true };
            let mut adamw = AdamW::new(run.named(), &case.config).unwrap();
            let mut ema = Ema::new(run.named(), &config).unwrap();
            for step in 1..=steps {
                run.step(&mut adamw, case, step);
                ema.update().unwrap();
                if stop == Some(step) {
                    adamw.save(&state).unwrap();
                    ema.save(&average).unwrap();
                    adamw = AdamW::load(run.named(), &case.config, &state).unwrap();
                    ema = Ema::load(run.named(), &config, &average).unwrap();
                }
            }
            let averages: Vec<Tensor> = ema.averages().map(|(_, average)| average.copy()).collect();
            (run.parameters, averages)
        };
        let whole = run(None);
        assert_eq!(run(Some(17)), whole);
        assert_eq!(run(Some(1)), whole);
    }
}

#[test]
fn a_constant_average_is_a_geometric_sum() {
    let x = Tensor::from_slice(&[1.0f32, -2.0]);
    let mut ema = Ema::new([("x", &x)], &EmaConfig { decay: 0.75, warm_up: false }).unwrap();
    x.shallow_clone().copy_(&Tensor::from_slice(&[5.0f32, 6.0]));
    for _ in 0..3 {
        ema.update().unwrap();
    }
    let kept = 0.75f64.powi(3);
    let expected = Tensor::from_slice(&[kept + 5.0 * (1.0 - kept), -2.0 * kept + 6.0 * (1.0 - kept)]);
    let average = |ema: &Ema| ema.averages().next().unwrap().1.copy();
    assert_close("average", &average(&ema), &expected.to_kind(Kind::Float), 1e-6);

    let before = (x.copy(), average(&ema));
    ema.swap().unwrap();
    assert_eq!((average(&ema), x.copy()), before);
    ema.swap().unwrap();
    assert_eq!((x.copy(), average(&ema)), before);
}
