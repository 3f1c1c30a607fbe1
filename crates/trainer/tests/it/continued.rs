//! Runs that go on from what others have learned: longer ones, and ones that start from an embedding or a LoRA.

use std::fs;
use std::path::Path;

use adapters::Lora;
use options::{Adapter, LoraKeys, LoraTargets};
use runs::{TrainConfig, layout, read_log};
use tch::{Device, Kind, Tensor};
use trainer::{FinishedRun, Opening, Outcome};

use crate::common::{self, Folder, same, tensors};

/// The attention phase and the whole U-Net, so that one repeats what the other has trained.
fn steps(last: usize) -> TrainConfig {
    let mut config = common::config();
    config.phases[0].steps = 1;
    config.phases[1].steps = 1;
    config.phases[2].steps = last;
    config
}

fn losses(run: &Path) -> Vec<Vec<(String, f64)>> {
    let entries = read_log(run).unwrap();
    let losses = |entry: &runs::Entry| {
        let losses = entry.values.iter().filter(|(name, _)| name.ends_with("_loss"));
        losses.map(|(name, value)| (name.clone(), *value)).collect()
    };
    entries.iter().map(losses).collect()
}

#[test]
fn an_extended_run_is_as_if_it_had_been_longer() {
    let folder = Folder::new();
    let long = folder.config(steps(5));
    let short = TrainConfig { keep_checkpoint: true, ..folder.config(steps(3)) };
    assert_eq!(folder.run(&long, "long", Opening::New, 100).unwrap(), Outcome::Finished);
    assert_eq!(folder.run(&short, "short", Opening::New, 100).unwrap(), Outcome::Finished);
    assert!(FinishedRun::open(&folder.at("short")).unwrap().is_complete());
    let before = fs::read(folder.at("short").join(layout::UNET_WEIGHTS)).unwrap();

    let unet = |name: &str| folder.at(name).join(layout::UNET_WEIGHTS);
    let extending = folder.at("short");
    folder.run(&long, "extended", Opening::Extending(&extending), 100).unwrap();
    assert!(same(&unet("long"), &unet("extended")));
    assert!(same(&folder.at("long").join(layout::EMBEDDING), &folder.at("extended").join(layout::EMBEDDING)));
    assert_eq!(losses(&folder.at("long")), losses(&folder.at("extended")));
    let after = "phases/cross_attention/cross_attention.safetensors";
    assert!(same(&folder.at("long").join(after), &folder.at("extended").join(after)));
    assert_eq!(fs::read(unet("short")).unwrap(), before, "the shorter run is as it was");
    assert!(!folder.at("extended").join(layout::CHECKPOINTS).exists());

    // Stopped on the way, it resumes without the shorter run.
    let outcome = folder.run(&long, "stopped", Opening::Extending(&extending), 1).unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    fs::rename(&extending, folder.at("elsewhere")).unwrap();
    folder.run(&long, "stopped", Opening::Resumed, 100).unwrap();
    assert!(same(&unet("long"), &unet("stopped")));
}

#[test]
fn without_its_checkpoint_only_the_optimiser_starts_anew() {
    let folder = Folder::new();
    let (long, short) = (folder.config(steps(5)), folder.config(steps(3)));
    folder.run(&long, "long", Opening::New, 100).unwrap();
    folder.run(&short, "short", Opening::New, 100).unwrap();
    folder.run(&long, "extended", Opening::Extending(&folder.at("short")), 100).unwrap();
    let (expected, found) = (losses(&folder.at("long")), losses(&folder.at("extended")));
    // Of the fourth step in the last phase, which sees what the shorter run has learned.
    assert_eq!(found[..6], expected[..6]);
    assert_ne!(found[6], expected[6]);

    let refused = |config: &TrainConfig, run: &str, words: &str| {
        let error = folder.run(config, "refused", Opening::Extending(&folder.at(run)), 100).unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
        assert!(!folder.at("refused").exists());
    };
    refused(&short, "short", "has 3 steps of phase unet, and the longer one 3");
    folder.run(&short, "stopped", Opening::New, 1).unwrap();
    refused(&long, "stopped", "is not finished");
    refused(&long, "photos", "is not the folder of a training run");
}

fn lora(rank: u32, alpha: f64) -> TrainConfig {
    let mut config = methods::named("lora").unwrap().recipe();
    config.adapter = Some(Adapter::Lora { rank, alpha: Some(alpha), targets: LoraTargets::Attention });
    let phase = &mut config.phases[0];
    (phase.steps, phase.batch_size, phase.learning_rate) = (2, 2, 1e-2);
    TrainConfig { placeholder: "<new>".to_owned(), new_token: true, ..config }
}

/// B A of a layer, times its scale.
fn product(run: &Path) -> Tensor {
    let run = FinishedRun::open(run).unwrap();
    let lora = run.lora().unwrap().unwrap();
    let change = lora.unet.values().next().unwrap().low_rank.as_ref().unwrap();
    change.up.matmul(&change.down) * (change.alpha / change.down.size()[0] as f64)
}

#[test]
fn a_run_starts_from_what_another_has_learned() {
    let folder = Folder::new();
    folder.run(&folder.config(lora(2, 2.0)), "first", Opening::New, 100).unwrap();
    let first = folder.at("first");
    let file = folder.at("lora.safetensors");
    FinishedRun::open(&first)
        .unwrap()
        .lora()
        .unwrap()
        .unwrap()
        .write(&file, LoraKeys::Kohya, Kind::Float, &[])
        .unwrap();
    let embedding = first.join(layout::EMBEDDING);

    // With a learning rate of zero, what a run starts from is what it ends with.
    let still = |config: TrainConfig, from: &Path| {
        let mut config = TrainConfig { init_from: Some(from.to_owned()), ..folder.config(config) };
        config.phases[0].learning_rate = 0.0;
        config.optimizer.weight_decay = 0.0;
        config
    };
    folder.run(&still(lora(2, 2.0), &first), "of-run", Opening::New, 100).unwrap();
    assert!(same(&first.join(layout::ADAPTER), &folder.at("of-run").join(layout::ADAPTER)));
    assert!(same(&embedding, &folder.at("of-run").join(layout::EMBEDDING)));
    folder.run(&still(lora(2, 4.0), &file), "of-file", Opening::New, 100).unwrap();
    let error = golden::relative_error(&product(&folder.at("of-file")), &product(&first));
    assert!(error < 1e-6, "{error}");
    let ti = || folder.config(methods::named("textual-inversion").unwrap().recipe());
    let mut inversion = still(ti(), &embedding);
    inversion.phases[0].steps = 1;
    folder.run(&inversion, "of-embedding", Opening::New, 100).unwrap();
    assert!(tensors(&embedding)[0].1.equal(&tensors(&folder.at("of-embedding").join(layout::EMBEDDING))[0].1));

    let vico = || folder.config(methods::named("vico").unwrap().recipe());
    let mut short = vico();
    short.phases[0].steps = 1;
    folder.run(&short, "vico", Opening::New, 100).unwrap();
    let run = FinishedRun::open(&folder.at("vico")).unwrap();
    let (pipeline, blocks) = run.image_attention().unwrap().unwrap();
    let exported = folder.at("vico.safetensors");
    vico::write(&exported, &pipeline.unet, &blocks, ("<new>", run.own_embedding().unwrap())).unwrap();
    let mut of_vico = still(vico(), &exported);
    of_vico.phases[0].steps = 1;
    of_vico.phases[0].trains.values_mut().for_each(|group| group.learning_rate = None);
    folder.run(&of_vico, "of-vico", Opening::New, 100).unwrap();
    for file in [layout::ADAPTER, layout::EMBEDDING] {
        assert!(same(&folder.at("vico").join(file), &folder.at("of-vico").join(file)), "{file}");
    }
    let error = folder.run(&still(ti(), &exported), "of-vico-refused", Opening::New, 100).unwrap_err();
    assert!(format!("{error:#}").contains("the method textual-inversion has none: give --method vico"), "{error:#}");

    // It is stopped before its first checkpoint, resumes without the other, and still knows where it came from.
    let mut learning = TrainConfig { init_from: Some(first.clone()), ..folder.config(lora(2, 2.0)) };
    learning.phases[0].steps = 3;
    folder.run(&learning, "whole", Opening::New, 100).unwrap();
    folder.run(&learning, "stopped", Opening::New, 1).unwrap();
    fs::remove_dir_all(folder.at("stopped").join(layout::CHECKPOINTS)).unwrap();
    fs::rename(&first, folder.at("elsewhere")).unwrap();
    folder.run(&learning, "stopped", Opening::Resumed, 100).unwrap();
    assert!(same(&folder.at("whole").join(layout::ADAPTER), &folder.at("stopped").join(layout::ADAPTER)));
    let run = FinishedRun::open(&folder.at("stopped")).unwrap();
    let pipeline = run.pipeline_after(None, (Kind::Float, Device::Cpu)).unwrap();
    let start = run.start_embedding(&pipeline).unwrap();
    assert!(start.equal(&tensors(&folder.at("elsewhere").join(layout::EMBEDDING))[0].1));
}

#[test]
fn a_run_of_several_subjects_knows_each_by_its_token() {
    let folder = Folder::new();
    let mut config = folder.of_two_subjects(methods::named("custom-diffusion").unwrap().recipe());
    folder.run(&config, "run", Opening::New, 1).unwrap();
    let run = folder.at("run");
    assert_eq!(["prior", "prior-2"].map(|prior| fs::read_dir(run.join(prior)).unwrap().count()), [1, 1]);
    // The photos are told by their contents, each subject's by its own.
    fs::rename(folder.at("dogs"), folder.at("moved")).unwrap();
    config.more_concepts[0].concept = folder.at("photos");
    let error = folder.run(&config, "run", Opening::Resumed, 100).unwrap_err();
    assert!(format!("{error:#}").contains("1.png was not there"), "{error:#}");
    config.more_concepts[0].concept = folder.at("moved");
    assert_eq!(folder.run(&config, "run", Opening::Resumed, 100).unwrap(), Outcome::Finished);

    let run = FinishedRun::open(&run).unwrap();
    let pipeline = run.pipeline((Kind::Float, Device::Cpu)).unwrap();
    let learned = tensors(&folder.at("run").join(layout::EMBEDDING));
    assert_eq!(learned.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["<new1>", "<new2>"]);
    for (name, rows) in &learned {
        let ids = pipeline.tokenizer.encode(&pipeline.resolve(name).unwrap()).unwrap().ids;
        let found = pipeline.text_encoder.embed(&Tensor::from_slice(&ids[1..2]).unsqueeze(0)).unwrap();
        assert!(found.get(0).equal(rows), "{name}");
    }
    assert!(!learned[0].1.equal(&learned[1].1));
}

#[test]
fn what_does_not_fit_is_no_start() {
    let folder = Folder::new();
    folder.run(&folder.config(lora(2, 2.0)), "first", Opening::New, 100).unwrap();
    let file = folder.at("lora.safetensors");
    let learned = || FinishedRun::open(&folder.at("first")).unwrap().lora().unwrap().unwrap();
    let plain = folder.at("plain.safetensors");
    learned().write(&plain, LoraKeys::Kohya, Kind::Float, &[]).unwrap();
    Lora { embeddings: [("<a>".to_owned(), Tensor::zeros([1, 31], (Kind::Float, Device::Cpu)))].into(), ..learned() }
        .write(&file, LoraKeys::Kohya, Kind::Float, &[])
        .unwrap();
    let refused = |config: TrainConfig, from: &Path, words: &str| {
        let config = TrainConfig { init_from: Some(from.to_owned()), ..folder.config(config) };
        let error = format!("{:#}", folder.run(&config, "refused", Opening::New, 100).unwrap_err());
        assert!(error.contains(words) && error.contains("--init-from"), "{error}");
        assert!(!folder.at("refused").exists());
    };
    let dreambooth = || methods::named("dreambooth").unwrap().recipe();
    refused(lora(1, 1.0), &plain, "its rank is 2 in");
    refused(lora(1, 1.0), &folder.at("first"), "\"rank\":2");
    refused(lora(2, 2.0), &file, "of width 31, but this model's text encoder has 32");
    refused(dreambooth(), &plain, "the method dreambooth has no adapter");
    refused(dreambooth(), &folder.at("first"), "neither an embedding nor an adapter");
    refused(dreambooth(), &folder.at("first").join(layout::EMBEDDING), "set new_token to true");
    refused(TrainConfig { vectors: 2, ..lora(2, 2.0) }, &folder.at("first"), "set vectors");
    refused(lora(2, 2.0), &folder.at("photos"), "is not the folder of a training run");
    refused(lora(2, 2.0), &folder.at("none"), "none");
}
