//! Reading `scheduler_config.json`, and what is said when it or a call is wrong.

use golden::fixtures;
use scheduler::{
    BetaSchedule, FinalSigmas, PredictionType, SchedulerConfig, SchedulerKind, TimestepSpacing, VarianceType,
};
use tch::{Device, Kind, Tensor};

fn fixture(name: &str) -> SchedulerConfig {
    SchedulerConfig::from_file(fixtures().join("scheduler").join(name)).unwrap()
}

/// The error of reading a file with this text, without the path in front.
fn refused(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler_config.json");
    std::fs::write(&path, text).unwrap();
    let message = SchedulerConfig::from_file(&path).unwrap_err().to_string();
    message.strip_prefix(&path.display().to_string()).unwrap().to_owned()
}

fn build_error(config: &SchedulerConfig, kind: SchedulerKind, steps: usize) -> String {
    let message = config.build(kind, steps).unwrap_err().to_string();
    assert!(!message.contains('\n') && !message.contains(". "), "not one sentence: {message}");
    message
}

#[test]
fn stable_diffusion_files_are_read() {
    for (file, kind, prediction_type) in [
        ("sd21_base.json", SchedulerKind::Pndm, PredictionType::Epsilon),
        ("sd21.json", SchedulerKind::Ddim, PredictionType::VPrediction),
        ("sd15.json", SchedulerKind::Pndm, PredictionType::Epsilon),
    ] {
        let config = fixture(file);
        assert_eq!(config.kind().unwrap(), kind);
        assert_eq!(config.prediction_type, prediction_type);
        assert_eq!((config.beta_start, config.beta_end), (0.00085, 0.012));
        assert_eq!(config.beta_schedule, BetaSchedule::ScaledLinear);
        assert_eq!((config.steps_offset, config.set_alpha_to_one), (1, Some(false)));
        assert!(config.skip_prk_steps && !config.clip_sample && config.timestep_spacing.is_none());
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler_config.json");
    let plain = fixtures().join("scheduler/sd15.json");
    std::fs::write(&path, format!("\u{feff}{}", std::fs::read_to_string(&plain).unwrap())).unwrap();
    assert_eq!(SchedulerConfig::from_file(&path).unwrap(), SchedulerConfig::from_file(&plain).unwrap());
}

/// As `DPMSolverMultistepScheduler.from_config` does it with the files of diffusers' other classes.
#[test]
fn dpm_solver_stands_in_for_the_classes_that_exist_only_in_diffusers() {
    #[derive(serde::Deserialize)]
    struct Case {
        file: String,
        timesteps: Vec<f32>,
    }
    let cases: std::collections::BTreeMap<String, Case> =
        serde_json::from_slice(&std::fs::read(fixtures().join("scheduler/elsewhere.json")).unwrap()).unwrap();
    assert!(cases.contains_key("UniPCMultistepScheduler") && cases.len() > 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler_config.json");
    for (name, case) in cases {
        std::fs::write(&path, case.file).unwrap();
        let config = SchedulerConfig::from_file(&path).unwrap();
        assert!(config.kind().is_err(), "{name}");
        let schedule = scheduler::NoiseSchedule::new(&config).unwrap();
        let (stand_in, note) = config.or_stand_in();
        let note = note.unwrap();
        assert!(
            note.starts_with(&format!("{name} does not exist here; DPMSolverMultistepScheduler stands in")),
            "{note}"
        );
        assert_eq!(stand_in.kind().unwrap(), SchedulerKind::DpmSolverPlusPlus);
        assert_eq!(scheduler::NoiseSchedule::new(&stand_in).unwrap(), schedule, "{name}");
        let steps = case.timesteps.len();
        assert_eq!(stand_in.build(stand_in.kind().unwrap(), steps).unwrap().timesteps(), case.timesteps, "{name}");
    }
}

#[test]
fn a_stand_in_is_only_for_what_cannot_be_followed() {
    let of = |name: &str| SchedulerConfig { class_name: Some(name.to_owned()), ..fixture("sd21_base.json") };
    // Their own, no scheduler, another noise schedule, and nothing at all.
    for name in SchedulerKind::ALL
        .map(SchedulerKind::class_name)
        .into_iter()
        .chain(["Scheduler", "FlowMatchEulerDiscreteScheduler"])
    {
        assert_eq!(of(name).or_stand_in(), (of(name), None));
    }
    assert_eq!(SchedulerConfig::default().or_stand_in(), (SchedulerConfig::default(), None));
    let flow = SchedulerConfig { use_flow_sigmas: Some(true), ..of("UniPCMultistepScheduler") };
    assert_eq!(flow.clone().or_stand_in(), (flow, None));

    let sde = SchedulerConfig { algorithm_type: "sde-dpmsolver++".to_owned(), ..of("DPMSolverMultistepScheduler") };
    let (stand_in, note) = sde.or_stand_in();
    assert_eq!(stand_in, of("DPMSolverMultistepScheduler"));
    assert!(note.unwrap().contains("does not support algorithm_type = sde-dpmsolver++ here"));
    let third = SchedulerConfig { solver_order: 3, ..of("UniPCMultistepScheduler") };
    assert_eq!(third.or_stand_in().0.solver_order, 2);
}

/// Every key, nulls, keys of other classes and an infinity.
#[test]
fn a_file_that_diffusers_saved_is_read() {
    let saved = fixture("saved_by_diffusers.json");
    let short = fixture("sd21_base.json");
    assert_eq!(saved.kind().unwrap(), SchedulerKind::DpmSolverPlusPlus);
    assert_eq!(saved.timestep_spacing, Some(TimestepSpacing::Linspace));
    assert_eq!((saved.lambda_min_clipped, saved.final_sigmas_type), (None, FinalSigmas::Zero));
    let [from_saved, from_short] =
        [saved, short].map(|config| config.build(SchedulerKind::DpmSolverPlusPlus, 25).unwrap());
    assert_eq!(from_saved.timesteps(), from_short.timesteps());
}

#[test]
fn absent_spacing_is_the_default_of_the_class_that_is_built() {
    let config = fixture("sd21_base.json");
    let ends = |kind, steps| {
        let scheduler = config.build(kind, steps).unwrap();
        let t = scheduler.timesteps();
        (t.len(), t[0], t[1], t[t.len() - 1])
    };
    assert_eq!(ends(SchedulerKind::Pndm, 50), (51, 981.0, 961.0, 1.0));
    assert_eq!(ends(SchedulerKind::Ddim, 50), (50, 981.0, 961.0, 1.0));
    assert_eq!(ends(SchedulerKind::Ddpm, 50), (50, 981.0, 961.0, 1.0));
    assert_eq!(ends(SchedulerKind::DpmSolverPlusPlus, 50), (50, 999.0, 979.0, 20.0));
    assert_eq!(ends(SchedulerKind::DpmSolverPlusPlus, 25), (25, 999.0, 959.0, 40.0));
    assert_eq!(ends(SchedulerKind::Euler, 20), (20, 999.0, (999.0_f64 * 18.0 / 19.0) as f32, 0.0));
}

#[test]
fn names_are_parsed_and_unknown_ones_answered_with_the_known() {
    for kind in SchedulerKind::ALL {
        assert_eq!(kind.class_name().parse::<SchedulerKind>().unwrap(), kind);
        assert_eq!(kind.short_name().parse::<SchedulerKind>().unwrap(), kind);
        assert_eq!(kind.to_string(), kind.class_name());
    }
    let known = "use one of ddpm (DDPMScheduler), ddim (DDIMScheduler), pndm (PNDMScheduler), \
                 dpm-solver++ (DPMSolverMultistepScheduler), euler (EulerDiscreteScheduler), \
                 euler-ancestral (EulerAncestralDiscreteScheduler)";
    let config = SchedulerConfig { class_name: Some("LMSDiscreteScheduler".to_owned()), ..SchedulerConfig::default() };
    assert_eq!(config.kind().unwrap_err().to_string(), format!("unknown scheduler \"LMSDiscreteScheduler\": {known}"));
    let message = SchedulerConfig::default().kind().unwrap_err().to_string();
    assert!(message.starts_with("the scheduler configuration has no _class_name: choose one of ddpm"), "{message}");
}

#[test]
fn unreadable_files_are_named() {
    let message = SchedulerConfig::from_file("no/such/scheduler_config.json").unwrap_err().to_string();
    assert!(message.starts_with("cannot read no/such/scheduler_config.json: "), "{message}");
    assert!(message.ends_with("pass the scheduler_config.json of a model's scheduler folder"), "{message}");
    assert_eq!(
        refused("{\"prediction_type\": \"eps\"}"),
        " is not a usable scheduler configuration: unknown variant `eps`, expected one of `epsilon`, `v_prediction`, \
         `sample` at line 1 column 25"
    );
    assert!(refused("{\"beta_start\": \"small\"}").contains("invalid type: string \"small\", expected f64 at line 1"));
    assert!(refused("{\"beta_start\": ").contains("EOF while parsing"));
    assert!(refused("{\"timestep_spacing\": \"even\"}").contains("one of `leading`, `linspace`, `trailing`"));
}

#[test]
fn step_counts_out_of_range_are_refused() {
    let config = fixture("sd21_base.json");
    for kind in SchedulerKind::ALL {
        for steps in [0, 1001] {
            assert_eq!(build_error(&config, kind, steps), format!("cannot sample in {steps} steps: use 1 to 1000"));
        }
    }
    assert_eq!(
        build_error(&config, SchedulerKind::Ddim, 1000),
        "1000 steps with leading spacing reach timestep 1000, but the model was trained with 0 to 999: use fewer steps, \
         another timestep_spacing or a smaller steps_offset"
    );
    assert_eq!(
        build_error(&config, SchedulerKind::DpmSolverPlusPlus, 1000),
        "1000 steps with linspace spacing visit timestep 500 twice: use fewer steps or another timestep_spacing"
    );
    let trailing = SchedulerConfig { timestep_spacing: Some(TimestepSpacing::Trailing), ..config };
    for kind in SchedulerKind::ALL {
        assert!(trailing.build(kind, 1000).is_ok(), "{kind}");
    }
}

#[test]
fn what_a_scheduler_does_not_have_is_refused_by_key() {
    let base = || fixture("sd21_base.json");
    let dpm = SchedulerKind::DpmSolverPlusPlus;
    for (config, kind, key) in [
        (
            SchedulerConfig { prediction_type: PredictionType::Sample, ..base() },
            SchedulerKind::Pndm,
            "prediction_type = sample",
        ),
        (SchedulerConfig { skip_prk_steps: false, ..base() }, SchedulerKind::Pndm, "skip_prk_steps = false"),
        (SchedulerConfig { thresholding: true, ..base() }, SchedulerKind::Ddim, "thresholding = true"),
        (SchedulerConfig { thresholding: true, ..base() }, SchedulerKind::Ddpm, "thresholding = true"),
        (
            SchedulerConfig { variance_type: Some(VarianceType::Learned), ..base() },
            SchedulerKind::Ddpm,
            "variance_type = Learned",
        ),
        (
            SchedulerConfig { algorithm_type: "sde-dpmsolver++".to_owned(), ..base() },
            dpm,
            "algorithm_type = sde-dpmsolver++",
        ),
        (SchedulerConfig { solver_type: "heun".to_owned(), ..base() }, dpm, "solver_type = heun"),
        (SchedulerConfig { eta: 1.5, ..base() }, SchedulerKind::Ddim, "eta = 1.5"),
        (SchedulerConfig { solver_order: 3, ..base() }, dpm, "solver_order = 3"),
        (SchedulerConfig { lambda_min_clipped: Some(100.0), ..base() }, dpm, "lambda_min_clipped = 100"),
        (SchedulerConfig { use_lu_lambdas: Some(true), ..base() }, dpm, "use_lu_lambdas = true"),
        (SchedulerConfig { use_beta_sigmas: Some(true), ..base() }, SchedulerKind::Euler, "use_beta_sigmas = true"),
        (
            SchedulerConfig { interpolation_type: "log_linear".to_owned(), ..base() },
            SchedulerKind::Euler,
            "interpolation_type = log_linear",
        ),
        (
            SchedulerConfig { timestep_type: "continuous".to_owned(), ..base() },
            SchedulerKind::Euler,
            "timestep_type = continuous",
        ),
    ] {
        let message = build_error(&config, kind, 3);
        assert!(message.starts_with(&format!("{kind} does not support {key} here: use ")), "{message}");
    }
}

/// At full noise x₀ cannot be computed from the noise; diffusers goes on with infinities.
#[test]
fn zero_terminal_snr_needs_another_prediction_than_the_noise() {
    let config = SchedulerConfig {
        rescale_betas_zero_snr: true,
        timestep_spacing: Some(TimestepSpacing::Trailing),
        ..fixture("sd21_base.json")
    };
    for kind in [SchedulerKind::Ddim, SchedulerKind::Ddpm] {
        let message = build_error(&config, kind, 10);
        assert!(message.contains("use v_prediction, or rescale_betas_zero_snr = false"), "{message}");
    }
}

#[test]
fn impossible_betas_are_refused() {
    let message = |config| build_error(&config, SchedulerKind::Ddim, 1);
    let base = SchedulerConfig::default;
    assert!(message(SchedulerConfig { beta_end: 1.5, ..base() }).contains("outside 0 <= beta < 1"));
    assert!(message(SchedulerConfig { beta_start: f64::NAN, ..base() }).contains("beta NaN at timestep 0"));
    assert_eq!(
        message(SchedulerConfig { trained_betas: Some(vec![0.1; 3]), ..base() }),
        "the noise schedule is unusable: trained_betas has 3 values but num_train_timesteps is 1000"
    );
}

#[test]
fn wrong_calls_of_step_are_one_sentence() {
    let config = fixture("sd21_base.json");
    let sample = Tensor::ones([1, 4, 2, 2], (Kind::Float, Device::Cpu));
    let message = |kind, index, output: &Tensor| {
        config.build(kind, 10).unwrap().step(index, output, &sample, None).unwrap_err().to_string()
    };
    for kind in SchedulerKind::ALL {
        let len = config.build(kind, 10).unwrap().timesteps().len();
        let expected = format!("step {len} does not exist: the scheduler has {len} steps, counted from 0");
        assert_eq!(message(kind, len, &sample), expected);
        assert_eq!(
            message(kind, 0, &sample.repeat([2, 1, 1, 1])),
            "the model output is [2, 4, 2, 2] but the sample is [1, 4, 2, 2]: pass equal shapes"
        );
    }
    for kind in [SchedulerKind::Ddpm, SchedulerKind::EulerAncestral] {
        assert_eq!(
            message(kind, 0, &sample),
            "step 0 needs noise: pass a standard normal tensor of the sample's shape"
        );
    }
    assert_eq!(
        message(SchedulerKind::Pndm, 5, &sample),
        "PNDMScheduler needs its steps in order from 0: step 5 was called where step 0 is next"
    );
}
