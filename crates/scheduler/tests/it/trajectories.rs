//! Every step of every scheduler against diffusers (`fixtures/scheduler/generate.py`).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;

use golden::{Golden, fixtures, relative_error};
use scheduler::{FinalSigmas, Scheduler, SchedulerConfig, SchedulerKind};
use serde_json::{Map, Value};
use tch::Tensor;

/// How a trajectory was configured.
struct Case {
    name: String,
    kind: SchedulerKind,
    steps: usize,
    config: SchedulerConfig,
}

fn cases(file: &str) -> Vec<Case> {
    let read = |name: &str| std::fs::read_to_string(fixtures().join("scheduler").join(name)).unwrap();
    let cases: Vec<Map<String, Value>> = serde_json::from_str(&read(file)).unwrap();
    let case = |case: Map<String, Value>| {
        let mut config: Map<String, Value> =
            case["base"].as_str().map(|base| serde_json::from_str(&read(base)).unwrap()).unwrap_or_default();
        config.extend(case["config"].as_object().unwrap().clone());
        Case {
            name: case["name"].as_str().unwrap().to_owned(),
            kind: case["kind"].as_str().unwrap().parse().unwrap(),
            steps: case["steps"].as_u64().unwrap() as usize,
            config: serde_json::from_value(config.into()).unwrap(),
        }
    };
    cases.into_iter().map(case).collect()
}

/// The sample after every call, with the generator's model.
fn run(scheduler: &mut dyn Scheduler, inputs: &Golden) -> Vec<Tensor> {
    let (shift, noise) = (inputs.get("shift"), inputs.get("noise"));
    let mut sample = inputs.get("sample") * scheduler.init_noise_sigma();
    (0..scheduler.timesteps().len())
        .map(|index| {
            let t = f64::from(scheduler.timesteps()[index]);
            let output = scheduler.scale_model_input(index, &sample).tanh() * 0.5 * (t / 1000.0).cos() + &shift;
            let noise = scheduler.needs_noise(index).then(|| noise.get(index as i64));
            sample = scheduler.step(index, &output, &sample, noise.as_ref()).unwrap();
            sample.shallow_clone()
        })
        .collect()
}

/// Runs all cases of a file; the largest error of each scheduler, of any step, relative to that step's largest value.
fn check(name: &str, adjust: impl Fn(SchedulerConfig) -> SchedulerConfig) {
    let (inputs, golden) =
        (Golden::open("scheduler/inputs.safetensors"), Golden::open(&format!("scheduler/{name}.safetensors")));
    let mut worst: BTreeMap<&str, (f64, String)> = BTreeMap::new();
    let cases = cases(&format!("{name}.json"));
    for Case { name, kind, steps, config } in &cases {
        let mut scheduler =
            adjust(config.clone()).build(*kind, *steps).unwrap_or_else(|error| panic!("{name}: {error}"));
        let timesteps = golden.get(&format!("{name}.timesteps"));
        let difference = (Tensor::from_slice(scheduler.timesteps()) - &timesteps).abs().max().double_value(&[]);
        // Karras timesteps are no integers: they come from logarithms, which differ between libraries in the last bit.
        let allowed = if name.starts_with("euler/karras") { 1e-3 } else { 0.0 };
        assert!(difference <= allowed, "{name}: timesteps differ by {difference}");

        let expected = golden.get(name);
        let samples = run(scheduler.as_mut(), &inputs);
        assert_eq!(samples.len() as i64, expected.size()[0], "{name}");
        for (index, sample) in samples.iter().enumerate() {
            let error = relative_error(sample, &expected.get(index as i64));
            assert!(error <= 3e-6, "{name}, step {index}: relative error {error:.2e}");
            let entry = worst.entry(kind.short_name()).or_default();
            if error > entry.0 {
                *entry = (error, format!("{name}, step {index}"));
            }
        }
        // Step 0 forgets the run before.
        let again = run(scheduler.as_mut(), &inputs);
        assert!(samples.iter().zip(&again).all(|(a, b)| a.equal(b)), "{name}: a second run differs");
    }
    for (kind, (error, place)) in worst {
        println!("{kind}: largest relative error {error:.2e}, {place}");
    }
}

#[test]
fn every_step_equals_diffusers() {
    check("cases", |config| config);
}

/// The sampler of the paper: diffusers 0.21.2, whose DPM-Solver ends at timestep 0, not at σ = 0.
#[test]
fn sigma_min_is_the_ending_of_diffusers_0_21_2() {
    check("paper", |config| SchedulerConfig { final_sigmas_type: FinalSigmas::SigmaMin, ..config });
}
