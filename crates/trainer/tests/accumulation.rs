//! A batch in parts gives the losses and the gradients of the whole.
#![allow(clippy::unwrap_used)]

mod common;

use anyhow::Result;
use common::{config, start};
use regularizer::{Batch as Reduction, Mode};
use runs::{Prior, RegularizerConfig, Stage, StageConfig, TrainConfig};
use tch::Tensor;
use trainer::{Batch, BatchIndex, Batches, StepReport};

const SAMPLES: usize = 4;

/// One batch, in `parts`: of the subject's samples and, with prior preservation, of the category's after them.
struct Parts {
    whole: Batch,
    parts: usize,
    halves: usize,
}

impl Batches for Parts {
    fn batch(&mut self, place: BatchIndex) -> Result<Batch> {
        let part = |tensor: &Tensor| {
            let halves = tensor.chunk(self.halves as i64, 0);
            let parts: Vec<Tensor> =
                halves.iter().map(|half| half.chunk(self.parts as i64, 0)[place.part].shallow_clone()).collect();
            Tensor::cat(&parts, 0)
        };
        let Batch { latents, noise, timesteps } = &self.whole;
        Ok(Batch { latents: part(latents), noise: part(noise), timesteps: part(timesteps) })
    }
}

/// What one step shows of the same samples in `parts`, and all gradients together.
fn step(stage: Stage, config: &TrainConfig, parts: usize) -> (StepReport, Tensor) {
    let accumulate = |stage: StageConfig, parts: usize| StageConfig {
        batch_size: SAMPLES / parts,
        gradient_accumulation: parts,
        // So large that the regulariser weighs as much as the diffusion loss in so small a model.
        lambda_mean: 2e5,
        lambda_variance: 5e5,
        ..stage
    };
    let split = |parts| TrainConfig {
        embedding: accumulate(config.embedding, parts),
        unet: accumulate(config.unet, parts),
        ..config.clone()
    };
    let (_, mut whole) = start(split(1));
    let whole = whole.batch(BatchIndex { stage, step: 0, part: 0 }).unwrap();
    let (trainer, _) = start(split(parts));
    let mut batches = Parts { whole, parts, halves: if config.prior.is_some() { 2 } else { 1 } };
    let mut stage_run = trainer.start(stage).unwrap();
    let report = stage_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
    let gradients: Vec<Tensor> =
        trainer.trained(stage).into_iter().map(|(_, parameter)| parameter.grad().reshape([-1])).collect();
    (report, Tensor::cat(&gradients, 0))
}

fn close(name: &str, actual: f64, expected: f64) {
    assert!((actual - expected).abs() <= 1e-5 * expected.abs(), "{name}: {actual} and {expected}");
}

#[test]
fn a_batch_in_parts_is_the_whole_batch() {
    let plain = config();
    let regularizer = RegularizerConfig::default();
    let mean = RegularizerConfig { batch: Reduction::Mean, ..regularizer };
    let pooled = RegularizerConfig { mode: Mode::Pooled, ..regularizer };
    let min_snr = TrainConfig { snr_gamma: Some(5.0), ..plain.clone() };
    let prior = Some(Prior { prompt: "a photo of a cat".to_owned(), weight: 0.5, ..Prior::default() });
    for (name, config) in [
        ("sum", plain.clone()),
        ("mean", TrainConfig { regularizer: mean, ..plain.clone() }),
        ("pooled", TrainConfig { regularizer: pooled, ..plain.clone() }),
        ("min-SNR", min_snr.clone()),
        ("prior", TrainConfig { prior: prior.clone(), ..plain.clone() }),
        ("prior and min-SNR", TrainConfig { prior, ..min_snr }),
    ] {
        for stage in [Stage::Embedding, Stage::Unet] {
            let (whole, gradients) = step(stage, &config, 1);
            assert!(whole.attention_loss > 0.01 * whole.diffusion_loss, "the regulariser counts: {whole:?}");
            for parts in [2, SAMPLES] {
                let name = format!("{name}, {stage} in {parts} parts");
                let (report, accumulated) = step(stage, &config, parts);
                close(&name, report.diffusion_loss, whole.diffusion_loss);
                close(&name, report.attention_loss, whole.attention_loss);
                golden::assert_close(&name, &accumulated, &gradients, 2e-5);
            }
        }
    }
}

#[test]
fn the_authors_divide_the_sum_too() {
    let regularizer = RegularizerConfig { divide_by_accumulation: true, ..RegularizerConfig::default() };
    let authors = TrainConfig { regularizer, ..config() };
    let (whole, _) = step(Stage::Unet, &authors, 1);
    let (halves, _) = step(Stage::Unet, &authors, 2);
    close("diffusion", halves.diffusion_loss, whole.diffusion_loss);
    close("attention", halves.attention_loss, whole.attention_loss / 2.0);
}
