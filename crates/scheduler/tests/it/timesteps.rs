//! The timesteps of every step count from 1 to 998 against diffusers (`fixtures/scheduler/generate.py`).

use std::collections::BTreeMap;

use golden::fixtures;
use scheduler::{SchedulerConfig, SchedulerKind, TimestepSpacing};

/// The generator's checksum of some timesteps, continued from `sum`.
fn checksum(sum: u64, timesteps: &[f32]) -> u64 {
    timesteps.iter().fold(sum, |sum, t| (sum * 31 + u64::from(t.to_bits())) % ((1 << 31) - 1))
}

#[test]
fn every_step_count_visits_diffusers_timesteps() {
    let text = std::fs::read_to_string(fixtures().join("scheduler/timesteps.json")).unwrap();
    let expected: BTreeMap<String, Vec<u64>> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 12);
    let base = SchedulerConfig::from_file(fixtures().join("scheduler/sd21_base.json")).unwrap();
    for (name, sums) in expected {
        let (kind, spacing) = name.split_once('/').unwrap();
        let kind: SchedulerKind = kind.parse().unwrap();
        let spacing: TimestepSpacing = serde_json::from_value(spacing.into()).unwrap();
        let config = SchedulerConfig { timestep_spacing: Some(spacing), ..base.clone() };
        for (ten, expected) in sums.into_iter().enumerate() {
            let counts = ten * 10 + 1..=(ten * 10 + 10).min(998);
            let sum =
                counts.clone().fold(0, |sum, steps| checksum(sum, config.build(kind, steps).unwrap().timesteps()));
            assert_eq!(sum, expected, "{name}, steps {counts:?}");
        }
    }
}
