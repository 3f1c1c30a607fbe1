//! A small run: three photos by formula, the tiny model, three steps a phase.
#![allow(dead_code, clippy::unwrap_used)]

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use golden::fixtures;
use images::RgbImage;
use photos::{Augmentation, Photo};
use runs::{ConfigLayers, FurtherConcept, Prior, TrainConfig};
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};
use trainer::{Batches, Opening, Outcome, PhaseRun, PhotoBatches, Session, Trainer};
use weights::Archive;

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

    /// The tiny model, unless the configuration names one, and small crops.
    pub(crate) fn config(&self, config: TrainConfig) -> TrainConfig {
        let tiny = || fixtures().join("tiny-sd21");
        let mut config = TrainConfig {
            model: if config.model.as_os_str().is_empty() { tiny() } else { config.model.clone() },
            concept: self.at("photos"),
            category: "cat".to_owned(),
            augmentation: self::config().augmentation,
            prior: None,
            ..config
        };
        config.validation.steps = 2;
        config
    }

    /// Custom Diffusion of two subjects, the second in the folder `dogs`, each with a class image of its own.
    pub(crate) fn of_two_subjects(&self, recipe: TrainConfig) -> TrainConfig {
        fs::create_dir(self.at("dogs")).unwrap();
        photos()[0].pixels.save(self.at("dogs/dog.png")).unwrap();
        let mut config = self.config(recipe);
        config.prior = Some(Prior { images: 1, steps: 2, ..Prior::default() });
        config.phases[0].steps = 2;
        config.more_concepts = vec![FurtherConcept {
            concept: self.at("dogs"),
            category: "dog".to_owned(),
            placeholder: "<new2>".to_owned(),
            initial_word: Some("cat".to_owned()),
        }];
        config
    }

    /// Runs, until it has seen `stop` steps.
    pub(crate) fn run(
        &self,
        config: &TrainConfig,
        name: &str,
        opening: Opening<'_>,
        stop: usize,
    ) -> anyhow::Result<Outcome> {
        let seen = Cell::new(0);
        let session = Session::open(ConfigLayers::new(config)?, &self.at(name), Device::Cpu, opening)?;
        session.run(&|| seen.get() >= stop, &mut |event| {
            if matches!(event, trainer::Event::Step { .. }) {
                seen.set(seen.get() + 1);
            }
        })
    }
}

pub(crate) fn tensors(file: &Path) -> Vec<(String, Tensor)> {
    Archive::open(file).unwrap().tensors().unwrap().into_iter().collect()
}

pub(crate) fn same(a: &Path, b: &Path) -> bool {
    tensors(a).iter().zip(tensors(b)).all(|((_, a), (_, b))| a.equal(&b))
}

pub(crate) fn start(config: TrainConfig) -> (Trainer, PhotoBatches) {
    start_on("tiny-sd21", config)
}

pub(crate) fn start_on(model: &str, config: TrainConfig) -> (Trainer, PhotoBatches) {
    // More threads only wait for each other in so small a model.
    tch::set_num_threads(1);
    let pipeline = Pipeline::from_folder(&fixtures().join(model), (Kind::Float, Device::Cpu)).unwrap();
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
