//! Hidden states, gradients and prepared images are those of transformers, and what cannot be used is named.
#![allow(clippy::unwrap_used)]

use std::fs;

use dino::{Config, ViT, image_processor};
use golden::{fixtures, relative_error};
use tch::{Device, Kind, Tensor};
use weights::{Archive, Parameters};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn model() -> (ViT, Parameters) {
    ViT::from_folder(&fixtures().join("tiny-dino"), F32).unwrap()
}

fn golden(name: &str) -> Tensor {
    Archive::open(&fixtures().join("dino/dino.safetensors")).unwrap().tensors().unwrap().remove(name).unwrap()
}

#[test]
fn hidden_states_and_gradients_are_transformers() {
    let (model, _) = model();
    let pixels = golden("pixel_values").set_requires_grad(true);
    let states = model.forward(&pixels).unwrap();
    assert!(relative_error(&states, &golden("last_hidden_state")) < 1e-5);
    let features = model.features(&pixels).unwrap();
    assert!(features.equal(&states.select(1, 0)));
    features.square().sum(Kind::Float).backward();
    let error = relative_error(&pixels.grad(), &golden("gradient"));
    assert!(error < 1e-5, "{error}");
    // One image gives what it gives among others.
    let alone = model.features(&pixels.narrow(0, 1, 1)).unwrap();
    assert!(relative_error(&alone, &features.narrow(0, 1, 1)) < 1e-5);
}

#[test]
fn images_are_prepared_as_by_transformers() {
    let processor = image_processor(&fixtures().join("tiny-dino")).unwrap();
    let prepared = processor.process(&golden("image")).unwrap();
    let worst = (prepared - golden("prepared")).abs().max().double_value(&[]);
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn published_models_have_as_many_parameters() {
    let counts: serde_json::Value =
        serde_json::from_slice(&fs::read(fixtures().join("dino/counts.json")).unwrap()).unwrap();
    for (name, config) in [("vits16", Config::vits16()), ("vitb16", Config::default())] {
        let source = weights::Random { seed: 0 };
        let (_, parameters) = weights::build(&source, F32, |vs| ViT::new(vs, &config)).unwrap();
        assert_eq!(Some(parameters.count() as u64), counts[name].as_u64(), "{name}");
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let error = ViT::from_folder(&fixtures().join("tiny-clip"), F32).unwrap_err().to_string();
    assert!(error.contains("of type clip, but one of type vit"), "{error}");
    let (model, _) = model();
    let error = model.forward(&Tensor::zeros([1, 3, 30, 32], F32)).unwrap_err().to_string();
    assert!(error.contains("[1, 3, 30, 32]") && error.contains("[batch, 3, 32, 32]"), "{error}");
    let invalid = |config: Config, words: &str| {
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    invalid(Config { num_attention_heads: 5, ..Config::default() }, "num_attention_heads is 5");
    invalid(Config { hidden_size: 1 << 40, ..Config::default() }, "hidden_size is 1099511627776");
    invalid(Config { image_size: 8, ..Config::default() }, "image_size is 8");
    let folder = tempfile::tempdir().unwrap();
    for (text, words) in [
        (r#"{"resample": 1}"#, "resample is 1"),
        (r#"{"size": 0}"#, "size is 0"),
        (r#"{"image_std": [1, 0, 1]}"#, "image_std"),
    ] {
        fs::write(folder.path().join("preprocessor_config.json"), text).unwrap();
        let error = format!("{:#}", image_processor(folder.path()).unwrap_err());
        assert!(error.contains(words) && error.contains("preprocessor_config.json"), "{error}");
    }
}
