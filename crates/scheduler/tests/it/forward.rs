//! The training side against diffusers' DDPMScheduler (`fixtures/scheduler/generate.py`).

use golden::{Golden, assert_close, fixtures, relative_error};
use scheduler::{BetaSchedule, ForwardProcess, NoiseSchedule, PredictionType, SchedulerConfig};
use tch::{Device, Kind, Tensor};

fn stable_diffusion() -> SchedulerConfig {
    SchedulerConfig::from_file(fixtures().join("scheduler/sd21_base.json")).unwrap()
}

fn schedules() -> [(&'static str, SchedulerConfig); 4] {
    let base = stable_diffusion;
    [
        ("scaled_linear", base()),
        ("linear", SchedulerConfig { beta_schedule: BetaSchedule::Linear, ..base() }),
        ("cosine", SchedulerConfig { beta_schedule: BetaSchedule::SquaredcosCapV2, ..base() }),
        ("zero_snr", SchedulerConfig { rescale_betas_zero_snr: true, ..base() }),
    ]
}

/// Entry by entry: a table that is right only relative to its largest value would be wrong where ᾱ is small.
#[test]
fn tables_equal_diffusers() {
    let golden = Golden::open("scheduler/forward.safetensors");
    for (name, config) in schedules() {
        let schedule = NoiseSchedule::new(&config).unwrap();
        assert_eq!(schedule.len(), 1000);
        for (table, actual) in [("betas", schedule.betas()), ("alphas_cumprod", schedule.alphas_cumprod())] {
            let expected = Vec::<f32>::try_from(golden.get(&format!("{name}.{table}"))).unwrap();
            let error = |(a, e): (&f32, &f32)| if a == e { 0.0 } else { f64::from((a - e).abs() / e) };
            let worst = actual.iter().zip(&expected).map(error).fold(0.0, f64::max);
            println!("{name}.{table}: largest relative error of an entry {worst:.2e}");
            // Rescaled betas are 1 − a ratio: they have the ratio's rounding, which for a small beta is more than its own.
            let bound = if (name, table) == ("zero_snr", "betas") { 2e-4 } else { 2e-6 };
            assert!(worst <= bound, "{name}.{table}: {worst:.2e}");
        }
    }
}

#[test]
fn noise_velocity_and_snr_equal_diffusers() {
    let golden = Golden::open("scheduler/forward.safetensors");
    let (sample, noise, timesteps) = (golden.get("sample"), golden.get("noise"), golden.get("timesteps"));
    for (name, config) in schedules() {
        let forward = ForwardProcess::new(&config, Device::Cpu).unwrap();
        assert_eq!(forward.num_train_timesteps(), 1000);
        let close = |what: &str, actual: &Tensor| golden.assert_close(&format!("{name}.{what}"), actual, 1e-6);
        close("noisy", &forward.add_noise(&sample, &noise, &timesteps).unwrap());
        close("velocity", &forward.velocity(&sample, &noise, &timesteps).unwrap());
        // Relative to each ratio, for they span six orders of magnitude; log(SNR + tiny) keeps the zero.
        let (snr, expected) = (forward.snr(&timesteps).unwrap(), golden.get(&format!("{name}.snr")));
        assert_close(&format!("{name}.snr"), &(snr + 1e-12).log(), &(expected + 1e-12).log(), 1e-6);
    }
}

#[test]
fn the_target_is_what_the_model_predicts() {
    let golden = Golden::open("scheduler/forward.safetensors");
    let (sample, noise, timesteps) = (golden.get("sample"), golden.get("noise"), golden.get("timesteps"));
    let target = |prediction_type| {
        let config = SchedulerConfig { prediction_type, ..stable_diffusion() };
        ForwardProcess::new(&config, Device::Cpu).unwrap().target(&sample, &noise, &timesteps).unwrap()
    };
    assert!(target(PredictionType::Epsilon).equal(&noise));
    assert!(target(PredictionType::Sample).equal(&sample));
    golden.assert_close("scaled_linear.velocity", &target(PredictionType::VPrediction), 1e-6);
}

/// In bf16 only the result is rounded, to 8 bits: the tables stay in f32 (√(1 − ᾱ_0) in bf16 would be off by 7 %).
#[test]
fn bf16_samples_are_noised_in_f32() {
    let golden = Golden::open("scheduler/forward.safetensors");
    let [sample, noise] = ["sample", "noise"].map(|name| golden.get(name).to_kind(Kind::BFloat16));
    let timesteps = golden.get("timesteps");
    let forward = ForwardProcess::new(&stable_diffusion(), Device::Cpu).unwrap();
    let (wide_sample, wide_noise) = (sample.to_kind(Kind::Float), noise.to_kind(Kind::Float));
    for (narrow, wide) in [
        (forward.add_noise(&sample, &noise, &timesteps), forward.add_noise(&wide_sample, &wide_noise, &timesteps)),
        (forward.velocity(&sample, &noise, &timesteps), forward.velocity(&wide_sample, &wide_noise, &timesteps)),
    ] {
        let (narrow, wide) = (narrow.unwrap(), wide.unwrap());
        assert_eq!(narrow.kind(), Kind::BFloat16);
        assert!(narrow.equal(&wide.to_kind(Kind::BFloat16)));
    }
}

/// x₀ = √ᾱ x_t − √(1 − ᾱ) v, whatever the timestep.
#[test]
fn sample_and_velocity_give_the_clean_sample_back() {
    let golden = Golden::open("scheduler/forward.safetensors");
    let (sample, noise, timesteps) = (golden.get("sample"), golden.get("noise"), golden.get("timesteps"));
    let forward = ForwardProcess::new(&stable_diffusion(), Device::Cpu).unwrap();
    let noisy = forward.add_noise(&sample, &noise, &timesteps).unwrap();
    let velocity = forward.velocity(&sample, &noise, &timesteps).unwrap();
    // −velocity(a, b) = √(1 − ᾱ) a − √ᾱ b, so with the arguments' roles exchanged it inverts the pair.
    let clean = forward.velocity(&velocity, &noisy, &timesteps).unwrap();
    assert!(relative_error(&clean, &sample) < 1e-6);
}

#[test]
fn whatever_a_model_predicts_gives_the_clean_sample_back() {
    let golden = Golden::open("scheduler/forward.safetensors");
    let (sample, noise, timesteps) = (golden.get("sample"), golden.get("noise"), golden.get("timesteps"));
    for prediction_type in [PredictionType::Epsilon, PredictionType::VPrediction, PredictionType::Sample] {
        let config = SchedulerConfig { prediction_type, ..stable_diffusion() };
        let forward = ForwardProcess::new(&config, Device::Cpu).unwrap();
        let noisy = forward.add_noise(&sample, &noise, &timesteps).unwrap();
        let target = forward.target(&sample, &noise, &timesteps).unwrap();
        let clean = forward.clean(&noisy, &target, &timesteps).unwrap();
        // Where little of the sample is left, f32 loses digits of it.
        assert!(relative_error(&clean, &sample) < 1e-4, "{prediction_type}");
    }
}

#[test]
fn a_batch_is_its_samples_one_by_one() {
    let golden = Golden::open("scheduler/forward.safetensors");
    let (sample, noise, timesteps) = (golden.get("sample"), golden.get("noise"), golden.get("timesteps"));
    let forward = ForwardProcess::new(&stable_diffusion(), Device::Cpu).unwrap();
    let batch = forward.add_noise(&sample, &noise, &timesteps).unwrap();
    for i in 0..timesteps.size()[0] {
        let [x, e, t] = [&sample, &noise, &timesteps].map(|tensor| tensor.narrow(0, i, 1));
        assert!(forward.add_noise(&x, &e, &t).unwrap().equal(&batch.narrow(0, i, 1)));
    }
}

#[test]
fn unusable_tensors_are_one_sentence() {
    let forward = ForwardProcess::new(&stable_diffusion(), Device::Cpu).unwrap();
    let sample = Tensor::zeros([2, 4, 2, 2], (Kind::Float, Device::Cpu));
    let message =
        |noise: &Tensor, timesteps: &Tensor| forward.add_noise(&sample, noise, timesteps).unwrap_err().to_string();
    let advice = "pass an int64 tensor [2] of values from 0 to 999";
    let out_of_range = message(&sample, &Tensor::from_slice(&[0i64, 1000]));
    assert_eq!(out_of_range, format!("the timesteps are from 0 to 1000: {advice}"));
    let negative = message(&sample, &Tensor::from_slice(&[-1i64, 5]));
    assert_eq!(negative, format!("the timesteps are from -1 to 5: {advice}"));
    let floats = message(&sample, &Tensor::from_slice(&[0f32, 1.0]));
    assert_eq!(floats, format!("the timesteps are Float [2]: {advice}"));
    let too_few = message(&sample, &Tensor::from_slice(&[0i64]));
    assert_eq!(too_few, format!("the timesteps are Int64 [1]: {advice}"));
    let noise = message(&sample.narrow(0, 0, 1), &Tensor::from_slice(&[0i64, 1]));
    assert_eq!(noise, "the noise is [1, 4, 2, 2] but the sample is [2, 4, 2, 2]: pass equal shapes");
}
