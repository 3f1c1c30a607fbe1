//! What users get wrong, and what they are told.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use golden::fixtures;
use sampling::{ModelFolder, Pipeline, Request, Settings};
use tch::{Device, Kind};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn complaint(folder: &Path) -> String {
    let text = format!("{:#}", Pipeline::from_folder(folder, F32).unwrap_err());
    assert!(text.contains(&folder.display().to_string()), "{text}");
    text
}

#[test]
fn wrong_folders_are_told_apart() {
    let root = fixtures();
    let says = |path: &Path, words: &str| {
        let text = ModelFolder::open(path).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    };
    says(&root.join("no-such-model"), "there is no model folder");
    says(&root.join("fill.py"), "is a file");
    says(&root.join("tiny-sd21/unet"), "is a single component");
    says(&root, "not a complete model");
    assert!(ModelFolder::open(&root.join("tiny-sd21")).is_ok());
}

#[test]
fn damaged_models_name_the_file() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("model");
    copy(&fixtures().join("tiny-sd21"), &folder);
    let weights = folder.join("unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&weights).unwrap();

    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    assert!(complaint(&folder).contains("diffusion_pytorch_model.safetensors is not a valid safetensors file"));
    fs::remove_file(&weights).unwrap();
    assert!(complaint(&folder).contains("no weights in"));
    fs::write(folder.join("unet/diffusion_pytorch_model.bin"), "pickle").unwrap();
    assert!(complaint(&folder).contains("is a pickle file"));
    fs::write(&weights, &whole).unwrap();

    let config = folder.join("unet/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"block_out_channels\"", "\"blocks\"")).unwrap();
    assert!(complaint(&folder).contains("block_out_channels"));
    fs::write(&config, &text).unwrap();

    copy(&fixtures().join("tiny-clip"), &folder.join("text_encoder"));
    assert!(complaint(&folder).contains("text_encoder"));
}

#[test]
fn impossible_settings_are_refused_before_anything_is_drawn() {
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), F32).unwrap();
    let default = pipeline.default_settings();
    let request = [Request::new("a cat", 0)];
    let says = |settings: Settings, words: &str| {
        let error = pipeline.generate(&request, &settings, &mut |_| panic!("a step was done")).unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    };
    says(
        Settings { height: 100, ..default.clone() },
        "height 100 is not a positive multiple of 8; the nearest that is one is 104",
    );
    says(Settings { width: -8, ..default.clone() }, "width -8");
    says(Settings { steps: 0, ..default.clone() }, "0");
    says(Settings { steps: 2000, ..default.clone() }, "2000");
    says(Settings { guidance_scale: f64::NAN, ..default }, "guidance_scale");
    assert!(pipeline.generate(&[], &pipeline.default_settings(), &mut |_| {}).is_err());
}

#[test]
fn the_empty_prompt_is_valid() {
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), F32).unwrap();
    let settings = Settings { steps: 1, height: 16, width: 16, ..pipeline.default_settings() };
    assert_eq!(pipeline.generate(&[Request::new("", 0)], &settings, &mut |_| {}).unwrap().len(), 1);
}
