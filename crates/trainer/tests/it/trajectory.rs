//! Step by step what the authors' loop does in Python, from the same views, noise and timesteps.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use golden::{Digest, Golden, assert_close, fixtures};
use methods::Batch;
use regularizer::{Category, Mode};
use runs::{Prior, RegularizerConfig, TrainConfig};
use sampling::Pipeline;
use scheduler::PredictionType;
use tch::{Device, Kind, Tensor};
use trainer::{BatchIndex, Batches, LatentEncoder, Trainer};

const STEPS: usize = 5;
/// The numbers of the phases.
const CROSS_ATTENTION: usize = 1;
const UNET: usize = 2;
const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
const BOUND: f64 = 1e-4;

/// With latents of 8x8 these see a single pixel, so their gradient is nothing but rounding.
const BLIND: [&str; 2] = [
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_k.weight",
];

/// Batches as the golden file has them.
struct FromFile(Golden, LatentEncoder, String);

impl FromFile {
    fn open(trainer: &Trainer) -> Self {
        let encoder = LatentEncoder::new(&trainer.pipeline, &trainer.config).unwrap();
        let prompt = trainer.config.fill(&trainer.config.prompt);
        Self(Golden::open("trainer/trajectory.safetensors"), encoder, prompt)
    }

    fn at(&self, step: i64) -> Batch {
        let images = self.0.get("images").get(step).to_kind(Kind::Float) / 127.5 - 1.0;
        let images = images.repeat_interleave_self_int(8, 2, None).repeat_interleave_self_int(8, 3, None);
        let moments = self.1.moments(&images).unwrap();
        Batch {
            latents: self.1.sample(&moments, &self.0.get("posterior_noise").get(step)).unwrap(),
            noise: self.0.get("noise").get(step),
            timesteps: self.0.get("timesteps").get(step),
            mask: None,
            prompts: vec![self.2.clone()],
            class_prompts: Vec::new(),
            sizes: Vec::new(),
            references: None,
            drawn: None,
        }
    }
}

impl Batches for FromFile {
    fn batch(&mut self, place: BatchIndex) -> Result<Batch> {
        Ok(self.at((place.phase * STEPS + place.step) as i64))
    }
}

/// (learning rate, λ of the means, λ of the variances) of each stage.
type Rates = [(f64, f64, f64); 3];

const TRAJECTORY: Rates = [(1e-3, 1e4, 0.0), (1e-3, 2e4, 5e4), (1e-4, 2e4, 5e4)];

fn config(category: &str, rates: Rates) -> TrainConfig {
    let regularizer = RegularizerConfig { category: Category::First, ..Default::default() };
    let mut config = TrainConfig { category: category.to_owned(), regularizer, ..TrainConfig::paper() };
    for (phase, (learning_rate, lambda_mean, lambda_variance)) in config.phases.values_mut().zip(rates) {
        (phase.steps, phase.batch_size, phase.learning_rate) = (STEPS, 4, learning_rate);
        (phase.lambda_mean, phase.lambda_variance) = (lambda_mean, lambda_variance);
    }
    config
}

fn prompt_ids(trainer: &Trainer) -> Tensor {
    let pipeline = &trainer.pipeline;
    let prompt = pipeline.resolve(&trainer.config.fill(&trainer.config.prompt)).unwrap();
    Tensor::from_slice(&pipeline.tokenizer.encode(&prompt).unwrap().ids).unsqueeze(0)
}

fn trainer(config: TrainConfig, prediction_type: PredictionType) -> Trainer {
    let mut pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), F32).unwrap();
    pipeline.scheduler.prediction_type = prediction_type;
    Trainer::new(config, pipeline).unwrap()
}

/// Runs the three phases beside a golden file. The change of each parameter in a phase is compared relative to itself for
/// the phases in `each`, and of all parameters together in all.
fn follow(file: &str, config: TrainConfig, each: &[usize]) {
    let golden = Golden::open(&format!("trainer/{file}.safetensors"));
    let trainer = trainer(config, PredictionType::Epsilon);
    let ids = prompt_ids(&trainer);
    assert!(ids.get(0).equal(&golden.get("prompt_ids")));
    let mut batches = FromFile::open(&trainer);
    let mut worst = Worst::default();
    let losses = golden.get("losses");
    for phase in 0..3 {
        let before: Vec<Tensor> =
            trainer.trained(phase).unwrap().iter().map(|(_, tensor)| tensor.detach().copy()).collect();
        let mut phase_run = trainer.start(phase).unwrap();
        for step in 0..STEPS {
            let report = phase_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
            let at = (phase * STEPS + step) as i64;
            let relative = |loss: f64, which| (loss / losses.double_value(&[at, which]) - 1.0).abs();
            keep(&mut worst.diffusion, relative(report.loss("diffusion").unwrap(), 0));
            keep(&mut worst.attention, relative(report.loss("attention").unwrap(), 1));
            if phase == 0 {
                let expected = golden.get("embedding").get(step as i64).unsqueeze(0);
                keep(
                    &mut worst.embedding,
                    golden::relative_error(trainer.learned.embedding.as_ref().unwrap(), &expected),
                );
            }
        }
        phase_run.finish(&trainer).unwrap();
        if phase == 0 {
            let hidden = trainer.pipeline.text_encoder.forward(&ids).unwrap();
            let expected = golden.get("text_hidden_states");
            keep(&mut worst.text, golden::relative_error(&hidden.get(0).narrow(0, 0, 12), &expected));
            continue;
        }
        let mut squares = [0.0; 2];
        for (before, (name, after)) in before.iter().zip(trainer.trained(phase).unwrap()) {
            let expected = golden.get(&format!("stage{}.{name}", phase + 1));
            let digest = Digest::of(name, &(after.detach().to_kind(Kind::Double) - before));
            squares[0] += digest.norm().powi(2);
            squares[1] += expected.double_value(&[0]).powi(2);
            if each.contains(&phase) && !BLIND.contains(&name) {
                keep(&mut worst.change, digest.error(&expected));
            }
        }
        keep(&mut worst.total_change, ((squares[0] / squares[1]).sqrt() - 1.0).abs());
    }
    for name in golden.names().filter_map(|name| name.strip_prefix("stage3: ")) {
        let actual = trainer.pipeline.parameters.unet.get(name).unwrap();
        keep(&mut worst.weights, golden::relative_error(actual, &golden.get(&format!("stage3: {name}"))));
    }
    println!("{file}: largest relative errors {worst:?}");
    let Worst { diffusion, attention, embedding, text, change, total_change, weights } = worst;
    for error in [diffusion, attention, embedding, text, change, total_change, weights] {
        assert!(error <= BOUND, "{file}: {worst:?}");
    }
}

/// The largest relative error of each kind that was met.
#[derive(Debug, Default)]
struct Worst {
    diffusion: f64,
    attention: f64,
    embedding: f64,
    text: f64,
    change: f64,
    total_change: f64,
    weights: f64,
}

fn keep(worst: &mut f64, error: f64) {
    *worst = worst.max(error);
}

#[test]
fn fifteen_steps_equal_the_authors_loop() {
    follow("trajectory", config("photo", TRAJECTORY), &[CROSS_ATTENTION]);
}

/// Learning rates of 2e-6 move a weight by some units of its last place, so single changes are mostly rounding.
#[test]
fn with_the_papers_values() {
    let paper = TrainConfig::paper();
    let rates = [0, 1, 2].map(|number| {
        let phase = &paper.phases[number];
        (phase.learning_rate, phase.lambda_mean, phase.lambda_variance)
    });
    follow("paper", config("can", rates), &[CROSS_ATTENTION]);
}

#[test]
fn with_the_first_token_of_a_category_of_two() {
    let [first, second, (_, lambda_mean, lambda_variance)] = TRAJECTORY;
    let rates = [first, second, (1e-3, lambda_mean, lambda_variance)];
    follow("first_token", config("dog", rates), &[CROSS_ATTENTION, UNET]);
}

#[test]
fn options_give_the_losses_and_gradients_of_python() {
    let golden = Golden::open("trainer/options.safetensors");
    let plain = config("photo", TRAJECTORY);
    let pooled = RegularizerConfig { mode: Mode::Pooled, ..plain.regularizer };
    let prior = Prior::default();
    let min_snr = TrainConfig { snr_gamma: Some(5.0), ..plain.clone() };
    for (option, config, prediction_type) in [
        ("plain", plain.clone(), PredictionType::Epsilon),
        ("pooled", TrainConfig { regularizer: pooled, ..plain.clone() }, PredictionType::Epsilon),
        ("prior", TrainConfig { prior: Some(prior), ..plain.clone() }, PredictionType::Epsilon),
        ("min_snr", min_snr.clone(), PredictionType::Epsilon),
        ("velocity", plain.clone(), PredictionType::VPrediction),
        ("min_snr_velocity", min_snr, PredictionType::VPrediction),
    ] {
        let trainer = trainer(config, prediction_type);
        let _phase_run = trainer.start(UNET).unwrap();
        let prior = trainer.config.prior.as_ref().map(|prior| trainer.config.fill(&prior.prompt));
        let prompts = [Some("a photo of a [V] photo".to_owned()), prior];
        let prompts: Vec<&str> = prompts.iter().flatten().map(String::as_str).collect();
        let hidden = trainer.pipeline.encode_prompts(&prompts).unwrap();
        let batch = Batch { timesteps: golden.get("timesteps"), ..FromFile::open(&trainer).at(10) };
        let losses = trainer.losses(&trainer.config.phases[UNET], &batch, &hidden).unwrap();
        losses.iter().map(|term| term.value.shallow_clone()).sum::<Tensor>().backward();
        // The golden's diffusion loss has that of the class images in it.
        let (attention, diffusion) = losses.split_last().unwrap();
        let diffusion: Tensor = diffusion.iter().map(|term| term.value.shallow_clone()).sum();
        let both = Tensor::stack(&[&diffusion, &attention.value], 0);
        let name = format!("{option}.losses");
        for i in 0..2 {
            assert_close(&name, &both.get(i), &golden.get(&name).get(i), BOUND);
        }
        let prefix = format!("{option}.");
        let parameters = golden.names().filter_map(|name| name.strip_prefix(&prefix)).filter(|name| *name != "losses");
        for parameter in parameters {
            let gradient = trainer.pipeline.parameters.unet.get(parameter).unwrap().grad();
            golden.assert_close(&format!("{option}.{parameter}"), &gradient, BOUND);
        }
    }
}
