//! Prints the timesteps that a scheduler visits, with their noise level.
//!
//! ```sh
//! cargo run -p attndreambooth-scheduler --example timesteps -- [scheduler_config.json] [scheduler] [steps]
//! cargo run -p attndreambooth-scheduler --example timesteps -- fixtures/scheduler/sd21_base.json dpm-solver++ 25
//! ```

#![allow(clippy::print_stdout)]

use scheduler::{NoiseSchedule, SchedulerConfig, SchedulerKind};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let config = match arguments.next() {
        Some(path) => SchedulerConfig::from_file(path)?,
        None => SchedulerConfig { class_name: Some("EulerDiscreteScheduler".to_owned()), ..SchedulerConfig::default() },
    };
    let kind: SchedulerKind = match arguments.next() {
        Some(name) => name.parse()?,
        None => config.kind()?,
    };
    let steps = arguments.next().map_or(Ok(20), |steps| steps.parse())?;

    let scheduler = config.build(kind, steps)?;
    let sigmas = NoiseSchedule::new(&config)?.sigmas();
    println!("{kind}, {steps} steps, initial noise x {:.4}", scheduler.init_noise_sigma());
    println!("call  timestep      sigma");
    for (call, timestep) in scheduler.timesteps().iter().enumerate() {
        println!("{call:4}  {timestep:8.2}  {:9.5}", sigmas[timestep.round() as usize]);
    }
    Ok(())
}
