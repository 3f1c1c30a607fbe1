//! Runs on SDXL, whose tokens have an embedding for each text encoder.

use std::fs;
use std::path::Path;

use golden::fixtures;
use options::{Adapter, LoraKeys, LoraTargets};
use runs::{TrainConfig, layout};
use tch::{Device, Kind, Tensor};
use trainer::{FinishedRun, Opening, Outcome};

use crate::common::{Folder, same, tensors};

fn on_sdxl(config: TrainConfig) -> TrainConfig {
    TrainConfig { model: fixtures().join("tiny-sdxl"), category: "ball".to_owned(), ..config }
}

fn lora() -> TrainConfig {
    let mut config = methods::named("lora").unwrap().recipe();
    config.adapter = Some(Adapter::Lora { rank: 2, alpha: Some(2.0), targets: LoraTargets::Attention });
    let phase = &mut config.phases[0];
    (phase.steps, phase.batch_size, phase.learning_rate) = (2, 2, 1e-2);
    on_sdxl(TrainConfig { placeholder: "<new>".to_owned(), new_token: true, ..config })
}

#[test]
fn a_run_starts_from_what_another_has_learned() {
    let folder = Folder::new();
    folder.run(&folder.config(lora()), "first", Opening::New, 100).unwrap();
    let first = folder.at("first");
    let embedding = first.join(layout::EMBEDDING);
    let names: Vec<String> = tensors(&embedding).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["clip_g", "clip_l"]);

    // With a learning rate of zero, what a run starts from is what it ends with.
    let still = |config: TrainConfig, from: &Path| {
        let mut config = TrainConfig { init_from: Some(from.to_owned()), ..folder.config(config) };
        (config.phases[0].learning_rate, config.phases[0].steps) = (0.0, 1);
        config.optimizer.weight_decay = 0.0;
        config
    };
    folder.run(&still(lora(), &first), "of-run", Opening::New, 100).unwrap();
    assert!(same(&first.join(layout::ADAPTER), &folder.at("of-run").join(layout::ADAPTER)));
    assert!(same(&embedding, &folder.at("of-run").join(layout::EMBEDDING)));

    // The keys of the original code, as kohya's scripts write them.
    let file = folder.at("lora.safetensors");
    let learned = FinishedRun::open(&first).unwrap().lora().unwrap().unwrap();
    learned.write(&file, LoraKeys::Kohya, Kind::Float, &[]).unwrap();
    folder.run(&still(lora(), &file), "of-file", Opening::New, 100).unwrap();
    for (name, expected) in tensors(&first.join(layout::ADAPTER)) {
        let found = tensors(&folder.at("of-file").join(layout::ADAPTER)).into_iter().find(|(other, _)| *other == name);
        assert!(found.is_some_and(|(_, found)| golden::relative_error(&found, &expected) < 1e-6), "{name}");
    }

    let inversion = on_sdxl(methods::named("textual-inversion").unwrap().recipe());
    folder.run(&still(inversion, &embedding), "of-embedding", Opening::New, 100).unwrap();
    assert!(same(&embedding, &folder.at("of-embedding").join(layout::EMBEDDING)));
}

#[test]
fn a_run_of_several_subjects_knows_each_by_its_token_in_both_text_encoders() {
    let folder = Folder::new();
    let config = folder.of_two_subjects(on_sdxl(methods::named("custom-diffusion").unwrap().recipe()));
    assert_eq!(folder.run(&config, "run", Opening::New, 1).unwrap(), Outcome::Stopped);
    assert_eq!(folder.run(&config, "run", Opening::Resumed, 100).unwrap(), Outcome::Finished);
    // Their class images, generated with both text encoders.
    let run = folder.at("run");
    assert_eq!(["prior", "prior-2"].map(|prior| fs::read_dir(run.join(prior)).unwrap().count()), [1, 1]);

    let pipeline = FinishedRun::open(&run).unwrap().pipeline((Kind::Float, Device::Cpu)).unwrap();
    let second = pipeline.second.as_ref().unwrap();
    let encoders =
        [(&pipeline.tokenizer, &pipeline.text_encoder), (&second.tokenizer, second.text_encoder.text_model())];
    let learned = tensors(&run.join(layout::EMBEDDING));
    assert_eq!(learned.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["<new1>", "<new2>"]);
    for (name, row) in &learned {
        let found = encoders.map(|(tokenizer, encoder)| {
            let ids = tokenizer.encode(&pipeline.resolve(name).unwrap()).unwrap().ids;
            encoder.embed(&Tensor::from_slice(&ids[1..2]).unsqueeze(0)).unwrap().get(0)
        });
        assert!(Tensor::cat(&found, -1).equal(row), "{name}");
    }
    assert!(!learned[0].1.equal(&learned[1].1));
}
