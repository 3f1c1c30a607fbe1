//! Runs whose last phase ends by what is measured.

use std::fs;
use std::path::Path;

use golden::fixtures;
use optimizer::EmaConfig;
use runs::{
    AutoStop, ConfigLayers, Dvar, Ending, Measurement, Reason, Stop, StopClip, StopRecord, TrainConfig, layout,
    read_log,
};
use tch::Device;
use trainer::{Event, FinishedRun, Opening, Outcome, Session};

use crate::common::{self, Folder};

impl Folder {
    /// One step of the first phases and `steps` of the last, which changes much and is averaged.
    fn config_with(&self, steps: usize, stop: Option<Stop>) -> TrainConfig {
        let mut config = TrainConfig {
            model: fixtures().join("tiny-sd21"),
            concept: self.at("photos"),
            stop,
            ema: Some(EmaConfig::default()),
            checkpoint_every: 3,
            ..common::config()
        };
        config.validation.steps = 2;
        for phase in config.phases.values_mut() {
            (phase.steps, phase.learning_rate) = (1, 1e-3);
        }
        config.phases[2].steps = steps;
        config
    }

    fn run_watched(
        &self,
        config: &TrainConfig,
        name: &str,
        opening: Opening<'_>,
        watch: &mut dyn FnMut(Event),
    ) -> anyhow::Result<Outcome> {
        Session::open(ConfigLayers::new(config)?, &self.at(name), Device::Cpu, opening)?.run(&|| false, watch)
    }
}

fn auto(tolerance: f64, patience: usize) -> AutoStop {
    AutoStop { every: 2, bins: 2, samples: 2, tolerance, patience, clip: None }
}

/// Its ending, and its measurements without what the clock says.
fn record(run: &Path) -> (Option<Ending>, Vec<Measurement>) {
    let record = StopRecord::read(run).unwrap().unwrap();
    (record.ending, record.measurements.into_iter().map(|at| Measurement { seconds: 0.0, ..at }).collect())
}

fn losses(run: &Path) -> Vec<Vec<(String, f64)>> {
    let losses = |entry: runs::Entry| entry.values.into_iter().filter(|(name, _)| name.ends_with("_loss")).collect();
    read_log(run).unwrap().into_iter().map(losses).collect()
}

fn learned(run: &Path) -> [Vec<u8>; 2] {
    [layout::EMBEDDING, layout::UNET_WEIGHTS].map(|file| fs::read(run.join(file)).unwrap())
}

#[test]
fn its_steps_are_those_of_any_run_and_its_result_that_of_the_step_it_takes_killed_or_not() {
    let folder = Folder::new();
    let stopping = folder.config_with(40, Some(Stop::Auto(auto(0.3, 2))));
    // The folder as a process leaves it that is killed after a step.
    let (mut steps, mut ended) = (0, None);
    folder
        .run_watched(&stopping, "whole", Opening::New, &mut |event| match event {
            Event::Step { .. } => {
                steps += 1;
                golden::copy_folder(&folder.at("whole"), &folder.at(&format!("killed-{steps}")));
            }
            Event::Ended { ending, .. } => ended = Some(ending),
            _ => {}
        })
        .unwrap();
    let whole = folder.at("whole");
    let (ending, measured) = record(&whole);
    let Ending { reason, done, taken } = ending.unwrap();
    assert_eq!((reason, ended), (Reason::Levelled, ending));
    assert!(0 < taken && taken + 4 == done && done < 40, "{measured:?}");
    assert_eq!(measured.iter().map(|at| at.step).collect::<Vec<_>>(), (0..=done).step_by(2).collect::<Vec<_>>());
    assert!(
        measured.iter().all(|at| at.gains.len() == 2 && (at.gain - (at.gains[0] + at.gains[1]) / 2.0).abs() < 1e-12)
    );
    assert!(!whole.join(layout::SNAPSHOTS).exists() && whole.join(layout::CURVES).exists());

    // Nothing that is measured has changed a step, and what is taken is what a run has that ends there.
    folder.run_watched(&folder.config_with(taken, None), "fixed", Opening::New, &mut |_| {}).unwrap();
    let fixed = losses(&folder.at("fixed"));
    assert_eq!((fixed.len(), losses(&whole).len()), (2 + taken, 2 + done));
    assert_eq!(losses(&whole)[..fixed.len()], fixed);
    assert_eq!(learned(&whole), learned(&folder.at("fixed")));

    for killed in [1, 2, 3, 5, 6, 2 + taken, 2 + done] {
        let name = format!("killed-{killed}");
        folder.run_watched(&stopping, &name, Opening::Resumed, &mut |_| {}).unwrap();
        let run = folder.at(&name);
        assert_eq!(record(&run), (ending, measured.clone()), "{name}");
        assert_eq!(losses(&run), losses(&whole), "{name}");
        assert_eq!(learned(&run), learned(&whole), "{name}");
        assert!(!run.join(layout::SNAPSHOTS).exists() && !run.join(layout::CHECKPOINTS).exists());
    }
    assert!(FinishedRun::open(&whole).unwrap().is_complete());

    let mut longer = folder.config_with(50, stopping.stop.clone());
    let refused = |config: &TrainConfig| {
        let error = folder.run_watched(config, "refused", Opening::Extending(&whole), &mut |_| {}).unwrap_err();
        assert!(format!("{error:#}").contains("a run with --stop has as many steps as it needs"), "{error:#}");
        assert!(!folder.at("refused").exists());
    };
    refused(&longer);
    longer.stop = None;
    refused(&longer);
}

#[test]
fn text_alignment_ends_a_phase_with_what_was_still_above_the_floor() {
    let folder = Folder::new();
    let clip =
        |floor| StopClip { model: fixtures().join("tiny-clip"), floor, every: 2, steps: 2, ..StopClip::default() };
    let stop = |floor| Some(Stop::Auto(AutoStop { clip: Some(clip(floor)), ..auto(0.0, 9) }));
    folder.run_watched(&folder.config_with(5, stop(0.0)), "free", Opening::New, &mut |_| {}).unwrap();
    let (ending, measured) = record(&folder.at("free"));
    assert_eq!(ending.unwrap().reason, Reason::Steps);
    // At every second measurement, and at the last.
    let seen: Vec<usize> = measured.iter().filter(|at| at.text_alignment.is_some()).map(|at| at.step).collect();
    assert_eq!(seen, [0, 4, 5]);
    assert!(measured.iter().filter_map(|at| at.text_alignment).all(|part| part.is_finite() && part.abs() < 5.0));

    // Below from the start: the phase changes nothing.
    folder.run_watched(&folder.config_with(5, stop(2.0)), "floor", Opening::New, &mut |_| {}).unwrap();
    assert_eq!(record(&folder.at("floor")).0, Some(Ending { reason: Reason::TextAlignment, done: 0, taken: 0 }));
    let unchanged = FinishedRun::open(&folder.at("floor")).unwrap();
    assert!(unchanged.stop_clip().unwrap().sha256.contains_key("model.safetensors"));
    folder.run_watched(&folder.config_with(0, None), "without", Opening::New, &mut |_| {}).unwrap();
    assert_eq!(losses(&folder.at("floor")), losses(&folder.at("without")));

    let mut none = folder.config_with(5, stop(0.0));
    if let Some(Stop::Auto(AutoStop { clip: Some(clip), .. })) = &mut none.stop {
        clip.model = folder.at("photos");
    }
    let error = folder.run_watched(&none, "refused", Opening::New, &mut |_| {}).unwrap_err();
    assert!(format!("{error:#}").contains("has no weights"), "{error:#}");
    assert!(!folder.at("refused").exists());
}

#[test]
fn dvar_ends_where_the_loss_varies_little_and_only_embeddings_have_it() {
    let folder = Folder::new();
    let dvar = Some(Stop::Dvar(Dvar { window: 4, epsilon: 0.3, samples: 2 }));
    let config = |steps: usize, stop: Option<Stop>| {
        let mut config = folder.config_with(steps, stop);
        config.phases.retain(|name, _| name == "embedding");
        (config.phases[0].steps, config.phases[0].learning_rate) = (steps, 0.1);
        config
    };
    folder.run_watched(&config(40, dvar.clone()), "dvar", Opening::New, &mut |_| {}).unwrap();
    let (ending, measured) = record(&folder.at("dvar"));
    let Ending { reason, done, taken } = ending.unwrap();
    assert_eq!((reason, done), (Reason::Variance, taken));
    // The paper's rule, of the losses themselves.
    let losses: Vec<f64> = measured[1..].iter().map(|at| 0.3 * (1.0 - at.gain)).collect();
    let variance = |xs: &[f64]| {
        let mean = xs.iter().sum::<f64>() / xs.len() as f64;
        xs.iter().map(|x| x * x).sum::<f64>() / xs.len() as f64 - mean * mean
    };
    let ends = |count: usize| variance(&losses[count - 4..count]) / variance(&losses[..count]) < 0.3;
    assert_eq!((4..=losses.len()).find(|count| ends(*count)), Some(done));
    folder.run_watched(&config(done, None), "fixed", Opening::New, &mut |_| {}).unwrap();
    let embedding = |run: &str| fs::read(folder.at(run).join(layout::EMBEDDING)).unwrap();
    assert_eq!(embedding("dvar"), embedding("fixed"));

    let says = |config: TrainConfig, words: &str| {
        let error = format!("{:#}", config.validate().unwrap_err());
        assert!(error.contains(words), "{error}");
    };
    says(folder.config_with(5, dvar), "train nothing but an embedding");
    let auto = Some(Stop::Auto(auto(0.1, 2)));
    says(TrainConfig { keep_checkpoint: true, ..folder.config_with(5, auto.clone()) }, "cannot be extended");
    says(TrainConfig { phases: runs::Phases::default(), ..folder.config_with(5, auto) }, "phases is empty");
}
