//! Whatever numbers a configuration has: a scheduler or a sentence, never a panic, and never minutes of work.

use proptest::prelude::*;
use scheduler::{SchedulerConfig, SchedulerKind};

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..20_u64, 2 => Just(1000), 1 => Just(u64::MAX), 1 => Just(1 << 63), 1 => Just(1 << 40)]
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![4 => 0.0..1.0, 1 => Just(-1.0), 1 => Just(1e308), 1 => Just(-0.0), 1 => Just(1e-320), 1 => -1e9..1e9]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_numbers(
        (timesteps, offset, order, steps) in (count(), count(), count(), count()),
        betas in (float(), float()),
        sigmas in (proptest::option::of(float()), proptest::option::of(float()), proptest::option::of(float())),
        schedule in prop::sample::select(vec!["linear", "scaled_linear", "squaredcos_cap_v2"]),
        spacing in prop::sample::select(vec!["leading", "linspace", "trailing"]),
        flags in any::<[bool; 5]>(),
    ) {
        let json = serde_json::json!({
            "num_train_timesteps": timesteps, "steps_offset": offset, "solver_order": order,
            "beta_start": betas.0, "beta_end": betas.1, "beta_schedule": schedule, "timestep_spacing": spacing,
            "sigma_min": sigmas.0, "sigma_max": sigmas.1, "lambda_min_clipped": sigmas.2,
            "rescale_betas_zero_snr": flags[0], "use_karras_sigmas": flags[1], "skip_prk_steps": flags[2],
            "set_alpha_to_one": flags[3], "lower_order_final": flags[4],
        });
        let config: SchedulerConfig = serde_json::from_value(json).unwrap();
        let schedule = scheduler::NoiseSchedule::new(&config);
        prop_assert!(schedule.is_ok() || !schedule.unwrap_err().to_string().is_empty());
        for kind in SchedulerKind::ALL {
            match config.build(kind, usize::try_from(steps).unwrap()) {
                Ok(scheduler) => prop_assert!(scheduler.timesteps().len() as u64 >= steps.min(1)),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
