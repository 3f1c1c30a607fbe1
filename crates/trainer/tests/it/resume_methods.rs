//! Every method: a run that was stopped anywhere and resumed ends in the same bits as one that was not.

use methods::Method;
use runs::{FurtherConcept, Prior, TrainConfig};
use trainer::{Checkpoint, Trainer};

use crate::common::{self, learned, run_to_end};

const STEPS: usize = 3;

/// A method's recipe for the tiny model.
fn config(recipe: TrainConfig) -> TrainConfig {
    let mut config = TrainConfig { category: "cat".to_owned(), ..recipe };
    config.augmentation = common::config().augmentation;
    config.prior = config.prior.map(|prior| Prior { images: 3, ..prior });
    if let Some(options::Adapter::Lora { rank, .. }) = &mut config.adapter {
        *rank = 2;
    }
    // "sks" is three tokens here, and so mere text.
    for phase in config.phases.values_mut() {
        (phase.steps, phase.batch_size, phase.learning_rate) = (STEPS, 2, 1e-3);
    }
    config
}

fn of_two_subjects(recipe: TrainConfig) -> TrainConfig {
    let further = FurtherConcept {
        concept: "dogs".into(),
        category: "dog".to_owned(),
        placeholder: "<new2>".to_owned(),
        initial_word: None,
    };
    TrainConfig { more_concepts: vec![further], ..recipe }
}

#[test]
fn every_method_resumes_to_the_same_bits() {
    for method in methods::ALL {
        resumes_to_the_same_bits("tiny-sd21", config(method.recipe()));
    }
    resumes_to_the_same_bits("tiny-sd21", of_two_subjects(config(methods::CustomDiffusion.recipe())));
}

/// Latents that are kept are those that are encoded anew by a run that resumes.
#[test]
fn cached_latents_are_those_of_new_ones() {
    for method in ["dreambooth", "custom-diffusion", "vico"] {
        let config = config(methods::named(method).unwrap().recipe());
        resumes_to_the_same_bits("tiny-sd21", TrainConfig { cache_latents: Some(1), ..config });
    }
}

#[test]
fn so_does_every_method_of_sdxl() {
    let learns = |method: &&dyn Method| method.check_sdxl(&config(method.recipe())).is_ok();
    let methods: Vec<_> = methods::ALL.into_iter().filter(learns).collect();
    assert_eq!(methods.len(), methods::ALL.len() - 2, "NeTI and ViCo are for Stable Diffusion 1.x and 2.x");
    for method in methods {
        resumes_to_the_same_bits("tiny-sdxl", config(method.recipe()));
    }
    // Its recipe has prior preservation.
    resumes_to_the_same_bits("tiny-sdxl", of_two_subjects(config(methods::CustomDiffusion.recipe())));
}

fn resumes_to_the_same_bits(model: &str, config: TrainConfig) {
    let method = config.method.clone();
    let (trainer, mut batches) = common::start_on(model, config.clone());
    let before = learned(&trainer);
    let mut losses = Vec::new();
    run_to_end(&trainer, &mut batches, trainer.start(0).unwrap(), &mut losses);
    let expected = learned(&trainer);
    assert!(before.iter().zip(&expected).any(|((_, a), (_, b))| !a.equal(b)), "{method} learns");

    let last = config.phases.len() - 1;
    let folder = tempfile::tempdir().unwrap();
    let (trainer, mut batches) = common::start_on(model, config.clone());
    let mut seen = Vec::new();
    for number in 0..=last {
        let mut phase_run = trainer.start(number).unwrap();
        for _ in 0..if number == last { 1 } else { STEPS } {
            let report = phase_run.step(&trainer, &mut batches).unwrap().wait().unwrap();
            seen.extend(report.losses.iter().map(|(_, loss)| *loss));
        }
        if number == last {
            phase_run.save(&trainer, &folder.path().join("last-00001")).unwrap();
        } else {
            phase_run.finish(&trainer).unwrap();
        }
    }
    drop((trainer, batches));
    let (trainer, mut batches) = common::start_on(model, config);
    let checkpoint = Checkpoint::latest(folder.path()).unwrap().unwrap();
    run_to_end(&trainer, &mut batches, trainer.resume(&checkpoint).unwrap(), &mut seen);
    assert_eq!(seen, losses, "{method}");
    for ((name, found), (_, expected)) in learned(&trainer).iter().zip(&expected) {
        assert!(found.equal(expected), "{method}: {name} differs");
    }
}

#[test]
fn what_does_not_fit_together_is_refused_in_a_sentence() {
    let says = |config: TrainConfig, words: &[&str]| {
        let pipeline = sampling::Pipeline::from_folder(
            &golden::fixtures().join("tiny-sd21"),
            (tch::Kind::Float, tch::Device::Cpu),
        );
        let error = format!("{:#}", Trainer::new(config, pipeline.unwrap()).unwrap_err());
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
    };
    let of = |method: &str| config(methods::named(method).unwrap().recipe());
    says(
        TrainConfig { method: "dreamboth".to_owned(), ..of("dreambooth") },
        &["no method \"dreamboth\"", "dreambooth, ti-db"],
    );
    says(TrainConfig { adapter: None, ..of("lora") }, &["phase adapter trains adapter", "the method lora has nothing"]);
    let large = Some(options::Adapter::Lora { rank: 64, alpha: None, targets: options::LoraTargets::Attention });
    says(TrainConfig { adapter: large, ..of("lora") }, &["the rank 64 is larger than the layer", "attn1.to_q"]);
    says(TrainConfig { new_token: false, ..of("textual-inversion") }, &["trains has embedding", "new_token"]);
    says(TrainConfig { templates: Some("photo28".to_owned()), ..of("textual-inversion") }, &["photo28", "photo27"]);
    let mut twice = of("dreambooth");
    twice.phases[0].trains.insert(runs::Group::CrossAttention, runs::GroupConfig::default());
    says(twice, &["unet and cross_attention, which share parameters"]);
    let mut regularised = of("textual-inversion");
    regularised.phases[0].lambda_mean = 1.0;
    says(regularised, &["lambda_mean", "templates has several"]);
}
