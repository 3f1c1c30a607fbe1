//! `inspect` as a user runs it.

use std::fs;
use std::path::Path;

use golden::fixtures;
use tch::Kind;
use weights::Archive;

use crate::common::{difference, json, model, program, refuses, succeed, trained};

fn tensor(path: &Path, name: &str) -> tch::Tensor {
    let tensors = Archive::open(path).unwrap().tensors().unwrap();
    let (_, tensor) = tensors.into_iter().find(|(key, _)| key.ends_with(name)).unwrap();
    tensor.to_kind(Kind::Double)
}

#[test]
fn the_embedding_is_compared_with_its_start_and_the_vocabulary() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let run = trained(folder, "run", &[]);
    let fixed = ["inspect", "--device", "cpu", "--run", &run, "--images", "2", "--steps", "3"];
    let output = succeed(&fixed);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("<new>, vector 1 of 1") && table.contains("ball (of the class noun)"), "{table}");

    let out = folder.join("run/inspect");
    let record = json(&out.join("inspect.json"));
    let vector = &record["vectors"][0];
    let learned = tensor(&folder.join("run/learned_embeds.safetensors"), "<new>").flatten(0, -1);
    let vocabulary = tensor(&fixtures().join("tiny-sd21/text_encoder/model.safetensors"), "token_embedding.weight");
    let category = &vector["category"][0];
    assert_eq!(category["token"], "ball</w>");
    let start = vocabulary.get(category["id"].as_i64().unwrap());
    let cosine = start.dot(&learned).double_value(&[]) / (start.norm() * learned.norm()).double_value(&[]);
    assert!(cosine < 0.9999, "nothing was learned");
    for (value, expected) in [
        (&vector["cosine"], cosine),
        (&category["cosine"], cosine),
        (&vector["norm"], learned.norm().double_value(&[])),
        (&vector["start_norm"], start.norm().double_value(&[])),
        (&vector["distance"], (&learned - &start).norm().double_value(&[])),
    ] {
        assert!((value.as_f64().unwrap() - expected).abs() < 1e-6, "{value} but {expected}");
    }
    let nearest = vector["nearest"].as_array().unwrap();
    assert_eq!(nearest.len(), 10);
    // Four steps do not lead away from the category.
    assert_eq!((&nearest[0]["token"], &nearest[0]["rank"]), (&"ball</w>".into(), &1.into()));

    // At its start [V] is the category's word, and learning changes its image.
    let (drawn, model) = (folder.join("drawn").display().to_string(), model());
    succeed(&["generate", "--device", "cpu", "--model", &model, "--prompt", "ball", "--steps", "3", "--out", &drawn]);
    assert!(difference(&out.join("before-seed0.png"), &folder.join("drawn/0000-seed0.png")) <= 1);
    assert!(difference(&out.join("before-seed0.png"), &out.join("after-seed0.png")) > 0);
    assert_eq!(record["pictures"].as_array().unwrap().len(), 4);
    assert!(out.join("grid.png").exists());

    // A folder of somebody's own images stays as it is; one of an earlier call is written anew.
    let own = folder.join("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("grid.png"), "mine").unwrap();
    refuses(
        &["inspect", "--run", &run, "--out", &own.display().to_string()],
        "(it has \"grid.png\") and not a folder that \"inspect\" has made",
    );
    assert_eq!(fs::read(own.join("grid.png")).unwrap(), b"mine");
    succeed(&fixed);

    let none = folder.join("none").display().to_string();
    succeed(&["inspect", "--device", "cpu", "--run", &run, "--images", "0", "--nearest", "3", "--out", &none]);
    let mut files: Vec<_> = fs::read_dir(&none).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, [".attndreambooth", "inspect.json"]);
    assert_eq!(json(&folder.join("none/inspect.json"))["vectors"][0]["nearest"].as_array().unwrap().len(), 3);

    refuses(&["inspect", "--run", &run, "--steps", "0"], "0 steps");
    fs::remove_file(folder.join("run/learned_embeds.safetensors")).unwrap();
    refuses(&["inspect", "--run", &run], "is not finished");
    refuses(&["inspect", "--run", "/no/run"], "/no/run is not the folder of a training run");
    assert!(!program(&["inspect"]).status.success());
}
