//! Step by step what the authors' loop does in Python, from the same views, noise and timesteps.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use golden::{Formula, Golden, fixtures};
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};
use trainer::{Batch, Batches, Place, Stage, StageConfig, TrainConfig, Trainer};
use weights::{Init, Source};

const STEPS: usize = 5;
const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Batches as the golden file has them.
struct FromFile<'a>(&'a Golden);

impl Batches for FromFile<'_> {
    fn batch(&mut self, place: Place) -> Result<Batch> {
        let at = (place.stage as usize * STEPS + place.step) as i64;
        let images = self.0.get("images").get(at).to_kind(Kind::Float) / 127.5 - 1.0;
        Ok(Batch {
            images: images.repeat_interleave_self_int(8, 2, None).repeat_interleave_self_int(8, 3, None),
            posterior_noise: self.0.get("posterior_noise").get(at),
            noise: self.0.get("noise").get(at),
            timesteps: self.0.get("timesteps").get(at),
        })
    }
}

fn config() -> TrainConfig {
    let stage = |learning_rate, lambda_mean, lambda_variance| StageConfig {
        steps: STEPS,
        learning_rate,
        batch_size: 4,
        gradient_accumulation: 1,
        lambda_mean,
        lambda_variance,
    };
    TrainConfig {
        category: "photo".to_owned(),
        embedding: stage(1e-3, 1e4, 0.0),
        cross_attention: stage(1e-3, 2e4, 5e4),
        unet: stage(1e-4, 2e4, 5e4),
        ..TrainConfig::paper()
    }
}

/// The largest relative error of each kind that was met.
#[derive(Debug, Default)]
struct Worst {
    diffusion: f64,
    attention: f64,
    embedding: f64,
    /// Of a parameter's change in a stage, relative to the parameter.
    change: f64,
    /// Of all parameters' change together, relative to that change.
    total_change: f64,
    weights: f64,
}

fn keep(worst: &mut f64, error: f64) {
    *worst = worst.max(error);
}

#[test]
fn fifteen_steps_equal_the_authors_loop() {
    let golden = Golden::open("trainer/trajectory.safetensors");
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), F32).unwrap();
    let trainer = Trainer::new(config(), pipeline).unwrap();
    assert!(trainer.subject.prompt_ids.get(0).equal(&golden.get("prompt_ids")));
    let mut worst = Worst::default();
    let losses = golden.get("losses");
    for stage in Stage::ALL {
        let parameters =
            || trainer.trained(stage).into_iter().map(|(n, t)| (n.to_owned(), t.detach().to_kind(Kind::Double)));
        let before: Vec<(String, Tensor)> = parameters().map(|(n, t)| (n, t.copy())).collect();
        let mut learning = trainer.start(stage).unwrap();
        for step in 0..STEPS {
            let report = learning.step(&trainer, &mut FromFile(&golden)).unwrap();
            let at = (stage as usize * STEPS + step) as i64;
            let relative = |loss: f64, which| {
                let expected = losses.double_value(&[at, which]);
                (loss - expected).abs() / expected
            };
            keep(&mut worst.diffusion, relative(report.diffusion_loss, 0));
            keep(&mut worst.attention, relative(report.attention_loss, 1));
            if stage == Stage::Embedding {
                let expected = golden.get("embedding").get(step as i64).unsqueeze(0);
                keep(&mut worst.embedding, golden::relative_error(&trainer.subject.embedding, &expected));
            }
        }
        learning.finish().unwrap();
        if stage == Stage::Embedding {
            continue;
        }
        let mut squares = [0.0; 2];
        for ((name, before), (_, after)) in before.iter().zip(parameters()) {
            let size = after.norm().double_value(&[]);
            let expected = golden.get(&format!("stage{}.{name}", stage.number()));
            let (norm, projection) = (expected.double_value(&[0]), expected.double_value(&[1]));
            let change = after - before;
            let pattern = Formula.fetch(name, &change.size(), Init::Const(0.0), F32).unwrap().to_kind(Kind::Double);
            // Where the gradient is nothing but rounding (a bias before a normalisation), AdamW makes steps of either sign
            // of it; so a single change is measured by its parameter, and all changes together by themselves.
            let actual = change.norm().double_value(&[]);
            keep(&mut worst.change, (actual - norm).abs() / size);
            let difference = (&change * &pattern).sum(Kind::Double).double_value(&[]) - projection;
            keep(&mut worst.change, difference.abs() / (size * pattern.norm().double_value(&[])));
            squares[0] += actual * actual;
            squares[1] += norm * norm;
        }
        keep(&mut worst.total_change, ((squares[0] / squares[1]).sqrt() - 1.0).abs());
    }
    for name in golden.names().filter_map(|name| name.strip_prefix("stage3: ")) {
        let actual = trainer.pipeline.parameters.unet.get(name).unwrap();
        keep(&mut worst.weights, golden::relative_error(actual, &golden.get(&format!("stage3: {name}"))));
    }
    println!("largest relative errors: {worst:?}");
    let Worst { diffusion, attention, embedding, change, total_change, weights } = worst;
    for error in [diffusion, attention, embedding, change, total_change, weights] {
        assert!(error <= 1e-4, "{worst:?}");
    }
}
