//! All three parts on placeholder drawings: a resumed training equals an uninterrupted one, and the parts make a model that
//! generates.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use pretrainer::{Config, Dtype, Part, Pretraining, Sources};
use sampling::{Pipeline, Request, Settings};
use scenes::{Album, World};
use tch::{Device, Kind};

fn sources() -> Sources {
    let world = World::miniature();
    let album = Album::placeholder(&world);
    Sources::new(world, album).unwrap()
}

fn config(part: Part, steps: u64) -> Config {
    let batch_size = if part == Part::Clip { 8 } else { 2 };
    // bf16 is slow where a CPU has no instructions for it.
    let dtype = if part == Part::Clip { Dtype::Bf16 } else { Dtype::Fp32 };
    Config { steps, batch_size, dtype, pool: 4, warm_up: 2, checkpoint_every: 2, ..Config::preset(part) }
}

fn train(part: Part, steps: u64, sources: &Sources, run: &Path, stop_after: Option<u64>) {
    let mut pretraining = Pretraining::open(part, config(part, steps), sources, run, Device::Cpu).unwrap();
    let start = pretraining.progress().0;
    let count = std::cell::Cell::new(start);
    let stop = || {
        count.set(count.get() + 1);
        Some(count.get()) == stop_after
    };
    let finished = pretraining.run(&stop, &mut |_| {}).unwrap();
    assert_eq!(finished, stop_after.is_none());
}

#[test]
fn a_stopped_training_ends_in_the_same_bytes_and_the_parts_make_a_model() {
    let sources = sources();
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for part in Part::ALL {
        train(part, 5, &sources, whole.path(), None);
        train(part, 5, &sources, stopped.path(), Some(3));
        train(part, 5, &sources, stopped.path(), None);
        let weights = |run: &Path| std::fs::read(run.join(part.name()).join("model.safetensors")).unwrap();
        assert!(weights(whole.path()) == weights(stopped.path()), "{part} differs");
    }
    let model = whole.path().join("model");
    pretrainer::assemble(whole.path(), &sources, &model).unwrap();
    let pipeline = Pipeline::from_folder(&model, (Kind::Float, Device::Cpu)).unwrap();
    let settings = Settings { steps: 1, ..pipeline.default_settings() };
    let generated = pipeline.generate(&[Request::new("a red apple on a table", 0)], &settings, &mut |_| {}).unwrap();
    assert_eq!(generated[0].dimensions(), (128, 128));
    assert_eq!(pipeline.unet.cross_attention_layers().len(), 16);
    let clip = clip::ClipModel::from_folder(&model.join("clip"), (Kind::Float, Device::Cpu));
    assert!(clip.is_ok());
}

#[test]
fn the_unet_needs_the_other_parts_first() {
    let run = tempfile::tempdir().unwrap();
    let refused = Pretraining::open(Part::Unet, config(Part::Unet, 1), &sources(), run.path(), Device::Cpu);
    let message = format!("{:#}", refused.err().unwrap());
    assert!(message.contains("train the parts vae and clip in"), "{message}");
}

#[test]
fn only_the_number_of_steps_may_change() {
    let (sources, run) = (sources(), tempfile::tempdir().unwrap());
    train(Part::Clip, 2, &sources, run.path(), None);
    train(Part::Clip, 3, &sources, run.path(), None);
    assert_eq!(pretrainer::recorded_steps(Part::Clip, run.path()).unwrap(), Some(3));
    assert_eq!(pretrainer::recorded_steps(Part::Vae, run.path()).unwrap(), None);
    let other = Config { learning_rate: 0.5, ..config(Part::Clip, 4) };
    let refused = Pretraining::open(Part::Clip, other, &sources, run.path(), Device::Cpu);
    let message = format!("{:#}", refused.err().unwrap());
    assert!(message.contains("learning_rate was 0.001, is 0.5"), "{message}");
}

#[test]
fn the_worlds_words_have_clips_own_tokens() {
    let sources = sources();
    let clip = tokenizer::Tokenizer::stable_diffusion_2().unwrap();
    let tokens = |tokenizer: &tokenizer::Tokenizer, text: &str| {
        let encoding = tokenizer.encode(text).unwrap();
        encoding.tokens[..encoding.len].to_vec()
    };
    for word in sources.world.words() {
        assert_eq!(tokens(&sources.tokenizer, &word), tokens(&clip, &word));
    }
    for subject in &sources.world.subjects {
        assert_eq!(tokens(&sources.tokenizer, &subject.category).len(), 3, "{}", subject.category);
    }
    // Whatever else is written still has tokens.
    let ids = sources.tokenizer.encode("a Zürich cobblestone, 42!").unwrap().ids;
    let text = sources.tokenizer.decode(&ids, true).unwrap();
    assert!(text.starts_with("a zürich cobblestone , 4 2"), "{text}");
}

#[test]
fn a_part_starts_from_a_finished_model_and_the_others_are_used_as_they_are() {
    let (sources, run, next) = (sources(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for part in Part::ALL {
        train(part, 2, &sources, run.path(), None);
    }
    let (model, same) = (run.path().join("model"), next.path().join("model"));
    pretrainer::assemble(run.path(), &sources, &model).unwrap();
    pretrainer::start_from(&model, next.path(), &sources).unwrap();
    pretrainer::assemble(next.path(), &sources, &same).unwrap();
    for file in ["unet/diffusion_pytorch_model.safetensors", "clip/model.safetensors", "vae/config.json"] {
        assert!(std::fs::read(model.join(file)).unwrap() == std::fs::read(same.join(file)).unwrap(), "{file} differs");
    }

    // Of another seed, whose random weights would be quite different ones, and with hardly any learning rate.
    let config = Config { seed: 1, learning_rate: 1e-6, ..config(Part::Unet, 2) };
    let train = |stop: bool| {
        let part = Pretraining::open(Part::Unet, config.clone(), &sources, next.path(), Device::Cpu);
        part.unwrap().run(&|| stop, &mut |_| {}).unwrap()
    };
    assert!(!train(true) && train(false));
    let name = "conv_in.weight";
    let read = |path: &Path| weights::Archive::open(path).unwrap().tensors().unwrap()[name].to_kind(Kind::Float);
    let start = read(&model.join("unet/diffusion_pytorch_model.safetensors"));
    let now = read(&next.path().join("unet/model.safetensors"));
    let change = (&now - &start).abs().max().double_value(&[]);
    assert!(change > 0.0 && change < 1e-5, "{change}");

    pretrainer::start_from(&model, next.path(), &sources).unwrap();
    let refused = |model: &Path, run: &Path, words: &str| {
        let message = format!("{:#}", pretrainer::start_from(model, run, &sources).unwrap_err());
        assert!(message.contains(words), "{message}");
    };
    let nothing = tempfile::tempdir().unwrap();
    refused(nothing.path(), &nothing.path().join("new"), "tokenizer/vocab.json");
    refused(&model, run.path(), "vae was started from something else");
    std::fs::write(model.join("clip/model.safetensors"), "another").unwrap();
    refused(&model, next.path(), "clip was started from another model");
}

#[test]
fn an_impossible_configuration_is_refused_and_leaves_nothing() {
    let (sources, run) = (sources(), tempfile::tempdir().unwrap());
    for (part, batch_size, words) in
        [(Part::Vae, 0, "at least one scene"), (Part::Clip, 12, "families of 8"), (Part::Unet, 3, "the pool of 4")]
    {
        let wrong = Config { batch_size, ..config(part, 1) };
        let message = format!("{:#}", Pretraining::open(part, wrong, &sources, run.path(), Device::Cpu).err().unwrap());
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(std::fs::read_dir(run.path()).unwrap().count(), 0);
    train(Part::Clip, 2, &sources, run.path(), None);
    let fewer = Pretraining::open(Part::Clip, config(Part::Clip, 1), &sources, run.path(), Device::Cpu);
    assert!(format!("{:#}", fewer.err().unwrap()).contains("has done 2 steps already"));
}
