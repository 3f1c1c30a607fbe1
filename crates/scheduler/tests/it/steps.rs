//! Properties of a step that hold without a reference.

use golden::{Golden, fixtures, relative_error};
use scheduler::{SchedulerConfig, SchedulerKind, TimestepSpacing};
use tch::{Kind, Tensor};

fn config() -> SchedulerConfig {
    SchedulerConfig::from_file(fixtures().join("scheduler/sd21_base.json")).unwrap()
}

/// Some steps with the sample itself as the model's output.
fn run(kind: SchedulerKind, sample: &Tensor, noise: &Tensor) -> Tensor {
    let mut scheduler = config().build(kind, 8).unwrap();
    let mut sample = sample.shallow_clone();
    for index in 0..scheduler.timesteps().len() {
        let output = scheduler.scale_model_input(index, &sample).tanh();
        sample = scheduler.step(index, &output, &sample, Some(noise)).unwrap();
    }
    sample
}

#[test]
fn a_batch_is_its_samples_one_by_one() {
    let inputs = Golden::open("scheduler/inputs.safetensors");
    let (sample, noise) = (inputs.get("sample"), inputs.get("shift"));
    for kind in SchedulerKind::ALL {
        let batch = run(kind, &sample, &noise);
        for i in 0..2 {
            let single = run(kind, &sample.narrow(0, i, 1), &noise.narrow(0, i, 1));
            assert!(relative_error(&single, &batch.narrow(0, i, 1)) < 1e-6, "{kind}");
        }
    }
}

/// A step in bf16 is the f32 step of the same numbers, rounded once.
#[test]
fn bf16_steps_are_made_in_f32() {
    let inputs = Golden::open("scheduler/inputs.safetensors");
    let [sample, noise] = ["sample", "shift"].map(|name| inputs.get(name).to_kind(Kind::BFloat16));
    for kind in SchedulerKind::ALL {
        let step = |sample: &Tensor, noise: &Tensor| {
            config().build(kind, 8).unwrap().step(0, &sample.neg(), sample, Some(noise)).unwrap()
        };
        let narrow = step(&sample, &noise);
        let wide = step(&sample.to_kind(Kind::Float), &noise.to_kind(Kind::Float));
        assert_eq!((narrow.kind(), wide.kind()), (Kind::BFloat16, Kind::Float));
        assert!(narrow.equal(&wide.to_kind(Kind::BFloat16)), "{kind}");
    }
}

/// A model that knows the answer: from x_T with exactly predicted noise, the samplers without noise of their own stay
/// on the line x = √ᾱ x₀ + √(1 − ᾱ) ε and arrive at x₀.
#[test]
fn an_oracle_leads_to_the_clean_sample() {
    let inputs = Golden::open("scheduler/inputs.safetensors");
    let (x0, epsilon) = (inputs.get("sample"), inputs.get("shift"));
    let config =
        SchedulerConfig { timestep_spacing: Some(TimestepSpacing::Trailing), set_alpha_to_one: Some(true), ..config() };
    let alpha_bar = f64::from(scheduler::NoiseSchedule::new(&config).unwrap().alphas_cumprod()[999]);
    for kind in [SchedulerKind::Ddim, SchedulerKind::Pndm, SchedulerKind::DpmSolverPlusPlus, SchedulerKind::Euler] {
        let mut scheduler = config.build(kind, 10).unwrap();
        let mut sample = &x0 * alpha_bar.sqrt() + &epsilon * (1.0 - alpha_bar).sqrt();
        if kind == SchedulerKind::Euler {
            sample /= alpha_bar.sqrt();
        }
        for index in 0..scheduler.timesteps().len() {
            sample = scheduler.step(index, &epsilon, &sample, None).unwrap();
        }
        let error = relative_error(&sample, &x0);
        println!("{kind}: {error:.2e}");
        assert!(error < 1e-5, "{kind}: {error:.2e}");
    }
}

/// A DPM-Solver that starts in the middle makes a first step of order 1, as a fresh one does.
#[test]
fn a_dpm_solver_may_start_anywhere() {
    let inputs = Golden::open("scheduler/inputs.safetensors");
    let (sample, output) = (inputs.get("sample"), inputs.get("shift"));
    let kind = SchedulerKind::DpmSolverPlusPlus;
    let mut used = config().build(kind, 20).unwrap();
    let _ = used.step(3, &output, &sample, None).unwrap();
    let [after_a_gap, fresh] =
        [used, config().build(kind, 20).unwrap()].map(|mut s| s.step(10, &output, &sample, None).unwrap());
    assert!(after_a_gap.equal(&fresh));
    let mut used = config().build(kind, 20).unwrap();
    let _ = used.step(9, &output.neg(), &sample, None).unwrap();
    assert!(!used.step(10, &output, &sample, None).unwrap().equal(&fresh), "order 2 uses the step before");
}

/// Steps whose noise would have no effect ask for none, such as DDPM at timestep 0.
#[test]
fn noise_is_asked_for_where_a_step_adds_it() {
    let config = SchedulerConfig { timestep_spacing: Some(TimestepSpacing::Linspace), ..config() };
    let asked = |config: &SchedulerConfig, kind| {
        let scheduler = config.build(kind, 3).unwrap();
        (0..scheduler.timesteps().len()).map(|index| scheduler.needs_noise(index)).collect::<Vec<_>>()
    };
    assert_eq!(asked(&config, SchedulerKind::Ddpm), [true, true, false]);
    assert_eq!(asked(&config, SchedulerKind::EulerAncestral), [true, true, false]);
    for kind in [SchedulerKind::Ddim, SchedulerKind::Pndm, SchedulerKind::DpmSolverPlusPlus, SchedulerKind::Euler] {
        assert!(!asked(&config, kind).contains(&true), "{kind}");
    }
    assert!(asked(&config.with_eta(SchedulerKind::Ddim, 1.0).unwrap(), SchedulerKind::Ddim).contains(&true));
}

/// A step with eta 1 is DDPM's (arXiv 2010.02502, section 4.1): it comes from q(x_s | x_t, x_0), whose mean and variance
/// (arXiv 2006.11239, equation 7) are written here as those of a product of two normal distributions.
#[test]
fn ddim_with_eta_1_samples_the_posterior() {
    let inputs = Golden::open("scheduler/inputs.safetensors");
    let (sample, epsilon, noise) = (inputs.get("sample"), inputs.get("shift"), inputs.get("sample").neg());
    let config = config().with_eta(SchedulerKind::Ddim, 1.0).unwrap();
    let table = scheduler::NoiseSchedule::new(&config).unwrap().alphas_cumprod().to_vec();
    let mut ddim = config.build(SchedulerKind::Ddim, 10).unwrap();
    for index in 0..9 {
        let [from, to] = [index, index + 1].map(|index| f64::from(table[ddim.timesteps()[index] as usize]));
        let x0 = (&sample - &epsilon * (1.0 - from).sqrt()) / from.sqrt();
        // x_s given x_0, and x_t given x_s, whose precisions add up.
        let (prior, step) = (1.0 - to, from / to);
        let variance = (prior.recip() + step / (1.0 - step)).recip();
        let mean = (x0 * (to.sqrt() / prior) + &sample * (step.sqrt() / (1.0 - step))) * variance;
        let expected = mean + &noise * variance.sqrt();
        let actual = ddim.step(index, &epsilon, &sample, Some(&noise)).unwrap();
        let error = relative_error(&actual, &expected);
        assert!(error < 2e-6, "step {index}: {error:.2e}");
    }
}

#[test]
fn an_eta_belongs_to_ddim_and_is_a_share() {
    let said = |kind, eta| config().with_eta(kind, eta).unwrap_err().to_string();
    assert_eq!(
        said(SchedulerKind::Pndm, 1.0),
        "PNDMScheduler has no eta, but eta 1 was asked for: use ddim (DDIMScheduler), or leave eta out"
    );
    assert!(said(SchedulerKind::Ddim, 1.5).starts_with("eta is 1.5, but must be from 0 to 1"));
    assert!(said(SchedulerKind::Ddim, f64::NAN).starts_with("eta is NaN"));
}
