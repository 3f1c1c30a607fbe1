//! A small run: three photos by formula, the tiny model, three steps a phase.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use golden::fixtures;
use images::RgbImage;
use photos::{Augmentation, Photo};
use runs::TrainConfig;
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};
use trainer::{Batches, PhaseRun, PhotoBatches, Trainer};

pub(crate) fn config() -> TrainConfig {
    let mut config = TrainConfig {
        category: "cat".to_owned(),
        augmentation: Augmentation { resolution: 32, ..Augmentation::default() },
        ..TrainConfig::paper()
    };
    for phase in config.phases.values_mut() {
        (phase.steps, phase.batch_size) = (3, 2);
    }
    config.phases[1].gradient_accumulation = 2;
    config
}

/// Three photos by formula.
pub(crate) fn photos() -> Vec<Photo> {
    let pixels =
        |n: u32| RgbImage::from_fn(48 + n, 40, |x, y| [(x * 5 + n * 40) as u8, (y * 6) as u8, (x ^ y) as u8].into());
    let photo = |n: u32| Photo::new(format!("{n}.png"), pixels(n));
    (0..3).map(photo).collect()
}

/// A folder for runs, with those photos in `photos`.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        tch::set_num_threads(1);
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.at("photos")).unwrap();
        for photo in photos() {
            photo.pixels.save(folder.at("photos").join(&photo.path)).unwrap();
        }
        folder
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

pub(crate) fn start(config: TrainConfig) -> (Trainer, PhotoBatches) {
    // More threads only wait for each other in so small a model.
    tch::set_num_threads(1);
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), (Kind::Float, Device::Cpu)).unwrap();
    let of_all = || vec![photos(); config.concepts().len()];
    let prior = if config.prior.is_some() { of_all() } else { Vec::new() };
    let batches = PhotoBatches::new(&config, &pipeline, of_all(), prior).unwrap();
    (Trainer::new(config, pipeline).unwrap(), batches)
}

/// Everything that training changes.
pub(crate) fn learned(trainer: &Trainer) -> Vec<(String, Tensor)> {
    let unet = trainer.pipeline.parameters.unet.iter();
    let added = trainer.learned.added.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let embedding = trainer.learned.embedding.iter().map(|rows| ("[V]", rows));
    let more = trainer.learned.more.iter().map(|(name, rows)| (name.as_str(), rows));
    let embedding = embedding.chain(more);
    unet.chain(added).chain(embedding).map(|(name, tensor)| (name.to_owned(), tensor.detach().copy())).collect()
}

/// Goes on with a phase, and then with the others; adds the terms of each step's loss.
pub(crate) fn run_to_end(trainer: &Trainer, batches: &mut dyn Batches, mut phase_run: PhaseRun, losses: &mut Vec<f64>) {
    loop {
        let phase = phase_run.number();
        while phase_run.done() < trainer.config.phases[phase].steps {
            let report = phase_run.step(trainer, batches).unwrap().wait().unwrap();
            losses.extend(report.losses.iter().map(|(_, loss)| *loss));
        }
        phase_run.finish(trainer).unwrap();
        if phase + 1 == trainer.config.phases.len() {
            return;
        }
        phase_run = trainer.start(phase + 1).unwrap();
    }
}
