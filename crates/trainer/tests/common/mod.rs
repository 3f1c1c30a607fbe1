//! A small run: three photos by formula, the tiny model, three steps a stage.
#![allow(dead_code, clippy::unwrap_used)]

use golden::fixtures;
use images::RgbImage;
use photos::{Augmentation, Photo};
use runs::{StageConfig, TrainConfig};
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};
use trainer::{PhotoBatches, Trainer};

pub(crate) fn config() -> TrainConfig {
    let paper = TrainConfig::paper();
    let small = |stage: StageConfig| StageConfig { steps: 3, batch_size: 2, ..stage };
    TrainConfig {
        category: "cat".to_owned(),
        embedding: small(paper.embedding),
        cross_attention: StageConfig { gradient_accumulation: 2, ..small(paper.cross_attention) },
        unet: small(paper.unet),
        augmentation: Augmentation { resolution: 32, ..Augmentation::default() },
        ..paper
    }
}

/// Three photos by formula.
pub(crate) fn photos() -> Vec<Photo> {
    let photo = |n: u32| Photo {
        path: format!("{n}.png").into(),
        sha256: String::new(),
        pixels: RgbImage::from_fn(48 + n, 40, |x, y| [(x * 5 + n * 40) as u8, (y * 6) as u8, (x ^ y) as u8].into()),
    };
    (0..3).map(photo).collect()
}

pub(crate) fn start(config: TrainConfig) -> (Trainer, PhotoBatches) {
    // More threads only wait for each other in so small a model.
    tch::set_num_threads(1);
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), (Kind::Float, Device::Cpu)).unwrap();
    let prior = config.prior.as_ref().map(|_| photos());
    let batches = PhotoBatches::new(&config, &pipeline, photos(), prior).unwrap();
    (Trainer::new(config, pipeline).unwrap(), batches)
}

/// Everything that training changes.
pub(crate) fn learned(trainer: &Trainer) -> Vec<(String, Tensor)> {
    let unet = trainer.pipeline.parameters.unet.iter().map(|(name, tensor)| (name.to_owned(), tensor.detach().copy()));
    unet.chain([("[V]".to_owned(), trainer.subject.embedding.detach().copy())]).collect()
}
