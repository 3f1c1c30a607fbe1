//! A batch in parts gives the losses and the gradients of the whole.

use anyhow::Result;
use methods::Batch;
use regularizer::{Batch as Reduction, Mode};
use runs::{Prior, RegularizerConfig, TrainConfig};
use tch::Tensor;
use trainer::{BatchIndex, Batches, StepReport};

use crate::common::{config, start};

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
        let Batch { latents, noise, timesteps, prompts, .. } = &self.whole;
        let prompts = prompts.clone();
        Ok(Batch {
            latents: part(latents),
            noise: part(noise),
            timesteps: part(timesteps),
            mask: None,
            prompts,
            class_prompts: Vec::new(),
            sizes: Vec::new(),
            references: None,
            drawn: None,
        })
    }
}

/// What one step shows of the same samples in `parts`, and all gradients together.
fn step(phase: usize, config: &TrainConfig, parts: usize) -> (StepReport, Tensor) {
    let split = |parts| {
        let mut config = config.clone();
        for phase in config.phases.values_mut() {
            (phase.batch_size, phase.gradient_accumulation) = (SAMPLES / parts, parts);
            // So large that the regulariser weighs as much as the diffusion loss in so small a model.
            (phase.lambda_mean, phase.lambda_variance) = (2e5, 5e5);
        }
        config
    };
    let (_, mut whole) = start(split(1));
    let whole = whole.batch(BatchIndex { phase, step: 0, part: 0 }).unwrap();
    let (trainer, _) = start(split(parts));
    let mut batches = Parts { whole, parts, halves: if config.prior.is_some() { 2 } else { 1 } };
    let mut phase_run = trainer.start(phase).unwrap();
    let report = phase_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
    let gradients: Vec<Tensor> =
        trainer.trained(phase).unwrap().into_iter().map(|(_, parameter)| parameter.grad().reshape([-1])).collect();
    (report, Tensor::cat(&gradients, 0))
}

fn loss(report: &StepReport, name: &str) -> f64 {
    report.loss(name).unwrap()
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
        for phase in [0, 2] {
            let (whole, gradients) = step(phase, &config, 1);
            assert!(loss(&whole, "attention") > 0.01 * loss(&whole, "diffusion"), "the regulariser counts: {whole:?}");
            for parts in [2, SAMPLES] {
                let name = format!("{name}, phase {phase} in {parts} parts");
                let (report, accumulated) = step(phase, &config, parts);
                for ((term, part), (_, whole)) in report.losses.iter().zip(&whole.losses) {
                    close(&format!("{name}: {term}"), *part, *whole);
                }
                golden::assert_close(&name, &accumulated, &gradients, 2e-5);
            }
        }
    }
}

#[test]
fn the_authors_divide_the_sum_too() {
    let regularizer = RegularizerConfig { divide_by_accumulation: true, ..RegularizerConfig::default() };
    let authors = TrainConfig { regularizer, ..config() };
    let (whole, _) = step(2, &authors, 1);
    let (halves, _) = step(2, &authors, 2);
    close("diffusion", loss(&halves, "diffusion"), loss(&whole, "diffusion"));
    close("attention", loss(&halves, "attention"), loss(&whole, "attention") / 2.0);
}
