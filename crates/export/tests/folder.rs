//! Exported folders draw what diffusers draws after the same changes, and take over the rest.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{BASES, TOKEN, assert_same, base, changed_unet, open, read, rows};
use export::Unet;
use golden::Golden;
use sampling::{Pipeline, Request, Settings};
use serde_json::Value;
use tch::Tensor;

/// All files below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { BTreeSet::from([path]) }).collect()
}

fn names(folder: &Path) -> Vec<String> {
    files(folder).iter().map(|path| path.strip_prefix(folder).unwrap().display().to_string()).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn pictures_are_those_that_diffusers_draws_after_the_same_changes() {
    let reference = Golden::open("export/pictures.safetensors");
    let folder = tempfile::tempdir().unwrap();
    for name in BASES {
        let out = folder.path().join(name);
        let unet = changed_unet(&base(name));
        export::diffusers_folder(&open(&base(name)), &out, Some(Unet::Tensors(&unet)), Some((TOKEN, &rows(32))))
            .unwrap();

        let pipeline = Pipeline::from_folder(&out, common::F32).unwrap();
        let prompt = pipeline.tokenizer.expand("a photo of a <dog> on the beach").unwrap();
        assert_eq!(prompt, "a photo of a <dog> <dog>_1 on the beach");
        let settings = Settings { steps: 8, height: 64, width: 64, ..pipeline.default_settings() };
        let pictures = pipeline.generate(&[Request::new(prompt, 17)], &settings, &mut |_| {}).unwrap();
        let expected = Vec::<u8>::try_from(reference.get(name).flatten(0, -1)).unwrap();
        let differences: Vec<u8> = pictures[0].as_raw().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
        assert_eq!(differences.len(), expected.len());
        let (differing, worst) = (differences.iter().filter(|d| **d > 0).count(), differences.iter().max().unwrap());
        println!("{name}: {differing} of {} bytes differ, by at most {worst}", expected.len());
        assert!(*worst <= 1);

        // The golden shows both changes: the base model draws something else.
        let pictures = Pipeline::from_folder(&base(name), common::F32)
            .unwrap()
            .generate(&[Request::new("a photo of a dog on the beach", 17)], &settings, &mut |_| {})
            .unwrap();
        assert!(pictures[0].as_raw().iter().zip(&expected).any(|(a, b)| a.abs_diff(*b) > 20));
    }
}

#[test]
fn the_new_token_is_in_the_tokenizer_and_at_the_end_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    for (name, table) in
        BASES.into_iter().zip(["text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"])
    {
        let (base, out) = (base(name), folder.path().join(name));
        export::diffusers_folder(&open(&base), &out, None, Some((TOKEN, &rows(32)))).unwrap();
        assert_eq!(json(&out.join("tokenizer/added_tokens.json")), serde_json::json!({"<dog>": 1200, "<dog>_1": 1201}));

        let mut expected = json(&base.join("text_encoder/config.json"));
        expected["vocab_size"] = 1202.into();
        assert_eq!(json(&out.join("text_encoder/config.json")), expected);

        let mut expected = read(&base.join("text_encoder"));
        let old = expected.insert(table.to_owned(), Tensor::new()).unwrap();
        expected.insert(table.to_owned(), Tensor::cat(&[old, rows(32)], 0));
        assert_same(name, &read(&out.join("text_encoder")), &expected);
    }
}

#[test]
fn what_was_not_learned_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd21", folder.path());
    for extra in ["README.md", "v2-1.safetensors", "vae/.hidden", "text_encoder/pytorch_model.bin"] {
        fs::write(base.join(extra), "extra").unwrap();
    }
    let unet = changed_unet(&base);
    let out = folder.path().join("out");
    export::diffusers_folder(&open(&base), &out, Some(Unet::Tensors(&unet)), Some((TOKEN, &rows(32)))).unwrap();

    let mut expected = names(&common::base("tiny-sd21"));
    expected.extend(["README.md", "tokenizer/added_tokens.json", "usage.txt"].map(str::to_owned));
    expected.sort_unstable();
    assert_eq!(names(&out), expected, "neither the base's single file nor weights without the new token");
    assert_same("unet", &read(&out.join("unet")), &unet);
    let vae = "vae/diffusion_pytorch_model.safetensors";
    for file in ["README.md", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json", vae] {
        assert_eq!(fs::read(out.join(file)).unwrap(), fs::read(base.join(file)).unwrap(), "{file}");
    }
    assert_eq!(json(&out.join("model_index.json")), json(&base.join("model_index.json")));
    assert!(fs::read_to_string(out.join("usage.txt")).unwrap().contains("<dog>"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&out), mode(&base), "ordinary permissions");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary folder is left");
}

#[test]
fn a_trained_unets_folder_is_taken_over_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (base, run) = (base("tiny-sd15"), folder.path().join("run/unet"));
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("config.json"), fs::read(base.join("unet/config.json")).unwrap()).unwrap();
    let unet = changed_unet(&base);
    weights::save(&run.join("diffusion_pytorch_model.safetensors"), &unet).unwrap();
    let out = folder.path().join("models/mine");
    export::diffusers_folder(&open(&base), &out, Some(Unet::Folder(&run)), None).unwrap();
    assert_same("unet", &read(&out.join("unet")), &unet);
    assert_eq!(names(&out.join("unet")), names(&run));
    assert_eq!(names(&out.join("tokenizer")), names(&base.join("tokenizer")));
}

/// By whatever means: a file rewritten in place, as training scripts and editors do.
#[test]
fn what_becomes_of_an_export_changes_neither_the_base_model_nor_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd21", folder.path());
    let run = folder.path().join("unet");
    export::diffusers_folder(&open(&base), &folder.path().join("run"), None, None).unwrap();
    fs::rename(folder.path().join("run/unet"), &run).unwrap();
    let contents = |folder: &Path| files(folder).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = [contents(&base), contents(&run)];
    let out = folder.path().join("out.pt/exported");
    export::diffusers_folder(&open(&base), &out, Some(Unet::Folder(&run)), Some((TOKEN, &rows(32)))).unwrap();
    for file in files(&out) {
        assert_eq!(fs::metadata(&file).unwrap().nlink(), 1, "{}", file.display());
        fs::OpenOptions::new().write(true).open(&file).unwrap().write_all(b"changed").unwrap();
    }
    assert!([contents(&base), contents(&run)] == before);
}

/// A limit on the size of files stands for the disk; this test runs alone in a process of its own.
#[test]
fn a_full_disk_leaves_nothing() {
    const FOLDER: &str = "EXPORT_TEST_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let error = export::diffusers_folder(&open(&base("tiny-sd21")), &Path::new(&folder).join("out"), None, None)
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.starts_with("cannot copy ") && text.contains("tiny-sd21/") && text.contains("File too large"),
            "{text}"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; ulimit -f 100; exec "$0" --exact a_full_disk_leaves_nothing"#])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// As in the cache of the model hub, where a model's files are links to contents elsewhere.
#[test]
fn links_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd15", folder.path());
    let (blob, weights) = (folder.path().join("blob"), base.join("vae/diffusion_pytorch_model.safetensors"));
    fs::rename(&weights, &blob).unwrap();
    symlink("../../blob", &weights).unwrap();
    let out = folder.path().join("elsewhere/out");
    export::diffusers_folder(&open(&base), &out, None, None).unwrap();
    fs::remove_file(&blob).unwrap();
    let copied = out.join("vae/diffusion_pytorch_model.safetensors");
    assert!(fs::symlink_metadata(&copied).unwrap().is_file());
    assert_same("vae", &read(&out.join("vae")), &read(&common::base("tiny-sd15").join("vae")));
}

#[test]
fn components_that_a_pipeline_can_do_without_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd15", folder.path());
    let mut index = json(&base.join("model_index.json"));
    index["safety_checker"] = serde_json::json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    index["requires_safety_checker"] = true.into();
    fs::write(base.join("model_index.json"), index.to_string()).unwrap();
    export::diffusers_folder(&open(&base), &folder.path().join("1"), None, None).unwrap();
    assert_eq!(
        json(&folder.path().join("1/model_index.json")),
        json(&common::base("tiny-sd15").join("model_index.json"))
    );

    fs::remove_file(base.join("model_index.json")).unwrap();
    export::diffusers_folder(&open(&base), &folder.path().join("2"), None, None).unwrap();
    let mut expected = json(&common::base("tiny-sd15").join("model_index.json"));
    expected.as_object_mut().unwrap().remove("_diffusers_version");
    assert_eq!(json(&folder.path().join("2/model_index.json")), expected);
}

#[test]
fn an_empty_folder_may_be_filled() {
    let folder = tempfile::tempdir().unwrap();
    export::diffusers_folder(&open(&base("tiny-sd15")), folder.path(), None, None).unwrap();
    assert!(folder.path().join("model_index.json").exists());
}
