//! `generate` as a user runs it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use golden::{Golden, fixtures};

fn generate(arguments: &[&str], out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args(["generate", "--device", "cpu", "--out"])
        .arg(out)
        .args(arguments)
        .output()
        .unwrap()
}

fn model() -> String {
    fixtures().join("tiny-sd21").display().to_string()
}

#[test]
fn prompts_become_pictures_a_grid_and_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/out");
    let model = model();
    let arguments = "--steps 2 --height 64 --width 48 --images 2 --seed 7 --batch-size 3 --scheduler euler --check";
    let arguments: Vec<&str> = arguments
        .split(' ')
        .chain(["--model", &model, "--prompt", "a cat", "--prompt", "", "--negative-prompt", "blurry"])
        .collect();
    let result = generate(&arguments, &out);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));

    let mut names: Vec<String> =
        fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        ["0000-seed7.png", "0001-seed8.png", "0002-seed7.png", "0003-seed8.png", "generate.json", "grid.png"]
    );
    let texts = pictures::png_texts(&out.join("0001-seed8.png")).unwrap();
    let expected = "a cat\nNegative prompt: blurry\nSteps: 2, Sampler: EulerDiscreteScheduler, CFG scale: 7.5, Seed: 8, \
                    Size: 48x64, Model: tiny-sd21";
    assert_eq!(texts, [("parameters".to_owned(), expected.to_owned())]);

    let record: serde_json::Value = serde_json::from_slice(&fs::read(out.join("generate.json")).unwrap()).unwrap();
    assert_eq!(record["settings"]["steps"], 2);
    assert_eq!(record["pictures"][3]["file"], "0003-seed8.png");
    assert_eq!(record["versions"]["libtorch"], "2.11.0");
}

#[test]
fn initial_latents_from_a_file_make_diffusers_picture() {
    let folder = tempfile::tempdir().unwrap();
    let latents = folder.path().join("latents.safetensors");
    let reference = Golden::open("pipelines/pictures.safetensors");
    weights::save(&latents, [("latents", reference.get("latents"))]).unwrap();
    let (model, latents) = (model(), latents.display().to_string());
    let arguments = ["--model", &model, "--prompt", "a photo of a cat", "--latents", &latents, "--guidance-scale", "3"];
    let arguments = [&arguments[..], &["--height", "64", "--width", "64", "--scheduler", "ddim"]].concat();
    let result = generate(&arguments, folder.path());
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let picture = image::open(folder.path().join("0000-seed0.png")).unwrap().into_rgb8();
    let expected = Vec::<u8>::try_from(reference.get("tiny-sd21.latents.DDIMScheduler").flatten(0, -1)).unwrap();
    assert!(picture.as_raw().iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1));
}

#[test]
fn what_is_wrong_is_said_in_a_sentence_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = model();
    let good = ["--model", model.as_str(), "--prompt", "a cat", "--steps", "1"];
    let says = |arguments: &[&str], words: &str| {
        let result = generate(arguments, &out);
        let stderr = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(words), "{stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("frame #"), "{stderr}");
        assert!(!out.exists(), "{words}");
    };
    let with = |more: &[&'static str]| -> Vec<&str> { good.iter().copied().chain(more.iter().copied()).collect() };
    says(&["--model", "/no/model", "--prompt", "a"], "there is no model folder /no/model");
    says(&["--model", &model], "--prompt");
    says(&with(&["--height", "100"]), "height 100 is not a positive multiple of 8");
    says(&with(&["--scheduler", "heun"]), "heun");
    says(&with(&["--latents", "/no/latents.safetensors"]), "/no/latents.safetensors");
    says(&["--model", &model, "--prompt", "a", "--steps", "0"], "0 steps");
    says(&with(&["--images", "0"]), "--images");
    if libtorch::cuda_unavailable().is_some() {
        let result = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["generate", "--device", "cuda:1"])
            .args(good)
            .output()
            .unwrap();
        let stderr = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(2));
        assert!(stderr.contains("device cuda:1 is not available") && stderr.contains("--device cpu"), "{stderr}");
    }
}
