//! Exported folders draw what diffusers draws after the same changes, and take over the rest.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use export::Unet;
use golden::Golden;
use sampling::{Pipeline, Request, Settings};
use serde_json::Value;
use tch::{Kind, Tensor};
use weights::Archive;

use crate::common::{self, BASES, TOKEN, assert_same, base, changed_unet, open, read, rows};

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

/// A configuration with what makes transformers load a component as f32.
fn loaded_as_f32(config: &mut Value) {
    config.as_object_mut().unwrap().remove("dtype");
    config["torch_dtype"] = "float32".into();
}

/// Gives the base's components their weights as f16, under other names.
fn halve(base: &Path, variant: &str) {
    for (component, stem) in
        [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")]
    {
        let halves = read(&base.join(component)).into_iter().map(|(name, tensor)| match tensor.is_floating_point() {
            true => (name, tensor.to_kind(Kind::Half)),
            false => (name, tensor),
        });
        let folder = base.join(component);
        let halves: Vec<_> = halves.collect();
        fs::remove_file(folder.join(format!("{stem}.safetensors"))).unwrap();
        weights::save(&folder.join(format!("{stem}{variant}.safetensors")), halves).unwrap();
    }
}

/// transformers loads a text encoder in the dtype of its file, and diffusers everything else as f32.
#[test]
fn learned_rows_stay_f32_beside_a_base_model_in_f16() {
    let folder = tempfile::tempdir().unwrap();
    for (name, table) in
        BASES.into_iter().zip(["text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"])
    {
        let base = common::copy_of(name, folder.path());
        halve(&base, "");
        let mut config = json(&base.join("text_encoder/config.json"));
        config["dtype"] = "float16".into();
        fs::write(base.join("text_encoder/config.json"), config.to_string()).unwrap();
        let out = folder.path().join(format!("{name}-out"));
        // No f16 holds a third.
        let rows = rows(32) / 3.0;
        export::diffusers_folder(&open(&base), &out, &export::Replaced::default(), &[(TOKEN, &rows)]).unwrap();

        let (written, old) = (read(&out.join("text_encoder")), read(&base.join("text_encoder")));
        assert!(written[table].narrow(0, 1200, 2).equal(&rows));
        assert!(written[table].narrow(0, 0, 1200).equal(&old[table].to_kind(Kind::Float)));
        assert!(written.values().all(|tensor| !tensor.is_floating_point() || tensor.kind() == Kind::Float));
        loaded_as_f32(&mut config);
        config["vocab_size"] = 1202.into();
        assert_eq!(json(&out.join("text_encoder/config.json")), config);
        // Without a new token, the file is as it was, and loaded as f32 all the same.
        let out = folder.path().join(format!("{name}-plain"));
        export::diffusers_folder(&open(&base), &out, &export::Replaced::default(), &[]).unwrap();
        assert_same("text encoder", &read(&out.join("text_encoder")), &old);
        config["vocab_size"] = 1200.into();
        assert_eq!(json(&out.join("text_encoder/config.json")), config);
    }
}

/// `from_pretrained(folder)` looks for no variant.
#[test]
fn a_variant_that_stands_alone_gets_the_plain_name() {
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd15", folder.path());
    halve(&base, ".fp16");
    // The U-Net in shards.
    let unet = base.join("unet");
    fs::rename(unet.join("diffusion_pytorch_model.fp16.safetensors"), unet.join("part.fp16.safetensors")).unwrap();
    let shards: serde_json::Map<String, Value> = Archive::open(&unet.join("part.fp16.safetensors"))
        .unwrap()
        .shapes()
        .map(|(name, _)| (name.to_owned(), "part.fp16.safetensors".into()))
        .collect();
    let index = unet.join("diffusion_pytorch_model.safetensors.index.fp16.json");
    fs::write(index, serde_json::json!({ "weight_map": shards }).to_string()).unwrap();

    assert_eq!(export::notes(&open(&base), &export::Replaced::default()).len(), 3);
    assert_eq!(export::notes(&open(&base), &export::Replaced::unet(Unet::Folder(&unet))).len(), 2);
    assert_eq!(export::notes(&open(&common::base("tiny-sd15")), &export::Replaced::default()), [""; 0]);

    let out = folder.path().join("out");
    export::diffusers_folder(&open(&base), &out, &export::Replaced::default(), &[]).unwrap();
    for component in ["unet", "vae", "text_encoder"] {
        let archive = Archive::open_folder(&out.join(component)).unwrap();
        assert!(archive.variant().is_none(), "{component}");
        assert_same(component, &archive.tensors().unwrap(), &read(&base.join(component)));
    }
    assert_eq!(
        names(&out.join("unet")),
        ["config.json", "diffusion_pytorch_model.safetensors.index.json", "part.fp16.safetensors"]
    );
}

/// As some programs make a table's number of rows round.
#[test]
fn the_rows_of_a_padded_table_give_way_to_learned_ones() {
    const TABLE: &str = "text_model.embeddings.token_embedding.weight";
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd15", folder.path());
    let plain = read(&base.join("text_encoder"));
    for (padding, left) in [(16, 14), (1, 0)] {
        let mut tensors = read(&common::base("tiny-sd15").join("text_encoder"));
        let padded = Tensor::cat(&[&plain[TABLE], &Tensor::full([padding, 32], 7.0, common::F32)], 0);
        tensors.insert(TABLE.to_owned(), padded);
        weights::save(&base.join("text_encoder/model.safetensors"), &tensors).unwrap();
        let mut config = json(&base.join("text_encoder/config.json"));
        config["vocab_size"] = (1200 + padding).into();
        fs::write(base.join("text_encoder/config.json"), config.to_string()).unwrap();

        let out = folder.path().join(format!("out{padding}"));
        export::diffusers_folder(&open(&base), &out, &export::Replaced::default(), &[(TOKEN, &rows(32))]).unwrap();
        let expected = Tensor::cat(&[&plain[TABLE], &rows(32), &Tensor::full([left, 32], 7.0, common::F32)], 0);
        assert!(read(&out.join("text_encoder"))[TABLE].equal(&expected));
        assert_eq!(json(&out.join("text_encoder/config.json"))["vocab_size"], 1202 + left);
        // Other programs' text encoders have exactly CLIP's tokens.
        let file = folder.path().join(format!("{padding}.safetensors"));
        export::single_file(&open(&base), &file, &export::Replaced::default(), &export::SingleFile::default()).unwrap();
        let table = Archive::open(&file).unwrap().tensor(&format!("cond_stage_model.transformer.{TABLE}")).unwrap();
        assert!(table.unwrap().equal(&plain[TABLE]));
    }
}

/// The remains of training programs in files do not prevent an export.
#[test]
fn tensors_that_mean_nothing_are_left_out_of_a_single_file() {
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd15", folder.path());
    for (component, file, extra) in [
        ("unet", "diffusion_pytorch_model", "model_ema.num_updates"),
        ("vae", "diffusion_pytorch_model", "loss.logvar"),
        ("text_encoder", "model", "vision_model.post_layernorm.weight"),
    ] {
        let mut tensors = read(&base.join(component));
        tensors.insert(extra.to_owned(), Tensor::ones([1], common::F32));
        weights::save(&base.join(component).join(format!("{file}.safetensors")), &tensors).unwrap();
    }
    let [file, plain] = [&base, &common::base("tiny-sd15")].map(|base| {
        let file = folder.path().join(format!("{}.safetensors", base.parent().unwrap() == folder.path()));
        let unet = common::base("tiny-sd15").join("unet");
        export::single_file(
            &open(base),
            &file,
            &export::Replaced::unet(Unet::Folder(&unet)),
            &export::SingleFile::default(),
        )
        .unwrap();
        Archive::open(&file).unwrap().tensors().unwrap()
    });
    assert_same("file", &file, &plain);
}

/// The safety checker is transformers' too, and sees what the pipeline has computed in f32.
#[test]
fn every_component_of_transformers_is_loaded_as_f32() {
    let folder = tempfile::tempdir().unwrap();
    let base = common::copy_of("tiny-sd15", folder.path());
    let mut index = json(&base.join("model_index.json"));
    index["safety_checker"] = serde_json::json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    fs::write(base.join("model_index.json"), index.to_string()).unwrap();
    fs::create_dir(base.join("safety_checker")).unwrap();
    fs::write(base.join("safety_checker/config.json"), r#"{"torch_dtype": "float16", "model_type": "clip"}"#).unwrap();
    let out = folder.path().join("out");
    export::diffusers_folder(&open(&base), &out, &export::Replaced::default(), &[]).unwrap();
    let expected = serde_json::json!({"torch_dtype": "float32", "model_type": "clip"});
    assert_eq!(json(&out.join("safety_checker/config.json")), expected);
    for component in ["unet", "vae"] {
        let file = format!("{component}/config.json");
        assert_eq!(fs::read(out.join(&file)).unwrap(), fs::read(base.join(&file)).unwrap());
    }
}

#[test]
fn images_are_those_that_diffusers_draws_after_the_same_changes() {
    let reference = Golden::open("export/pictures.safetensors");
    let folder = tempfile::tempdir().unwrap();
    for name in BASES {
        let out = folder.path().join(name);
        let unet = changed_unet(&base(name));
        export::diffusers_folder(
            &open(&base(name)),
            &out,
            &export::Replaced::unet(Unet::Tensors(&unet)),
            &[(TOKEN, &rows(32))],
        )
        .unwrap();

        let pipeline = Pipeline::from_folder(&out, common::F32).unwrap();
        let prompt = pipeline.tokenizer.expand("a photo of a <dog> on the beach").unwrap();
        assert_eq!(prompt, "a photo of a <dog> <dog>_1 on the beach");
        let settings = Settings { steps: 8, height: 64, width: 64, ..pipeline.default_settings() };
        let images = pipeline.generate(&[Request::new(prompt, 17)], &settings, &mut |_| {}).unwrap();
        let expected = Vec::<u8>::try_from(reference.get(name).flatten(0, -1)).unwrap();
        let differences: Vec<u8> = images[0].as_raw().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
        assert_eq!(differences.len(), expected.len());
        let (differing, worst) = (differences.iter().filter(|d| **d > 0).count(), differences.iter().max().unwrap());
        println!("{name}: {differing} of {} bytes differ, by at most {worst}", expected.len());
        assert!(*worst <= 1);

        // The golden shows both changes: the base model draws something else.
        let images = Pipeline::from_folder(&base(name), common::F32)
            .unwrap()
            .generate(&[Request::new("a photo of a dog on the beach", 17)], &settings, &mut |_| {})
            .unwrap();
        assert!(images[0].as_raw().iter().zip(&expected).any(|(a, b)| a.abs_diff(*b) > 20));
    }
}

#[test]
fn the_new_token_is_in_the_tokenizer_and_at_the_end_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    for (name, table) in
        BASES.into_iter().zip(["text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"])
    {
        let (base, out) = (base(name), folder.path().join(name));
        export::diffusers_folder(&open(&base), &out, &export::Replaced::default(), &[(TOKEN, &rows(32))]).unwrap();
        assert_eq!(json(&out.join("tokenizer/added_tokens.json")), serde_json::json!({"<dog>": 1200, "<dog>_1": 1201}));

        let mut expected = json(&base.join("text_encoder/config.json"));
        expected["vocab_size"] = 1202.into();
        loaded_as_f32(&mut expected);
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
    export::diffusers_folder(&open(&base), &out, &export::Replaced::unet(Unet::Tensors(&unet)), &[(TOKEN, &rows(32))])
        .unwrap();

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
    export::diffusers_folder(&open(&base), &out, &export::Replaced::unet(Unet::Folder(&run)), &[]).unwrap();
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
    export::diffusers_folder(&open(&base), &folder.path().join("run"), &export::Replaced::default(), &[]).unwrap();
    fs::rename(folder.path().join("run/unet"), &run).unwrap();
    let contents = |folder: &Path| files(folder).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = [contents(&base), contents(&run)];
    let out = folder.path().join("out.pt/exported");
    export::diffusers_folder(&open(&base), &out, &export::Replaced::unet(Unet::Folder(&run)), &[(TOKEN, &rows(32))])
        .unwrap();
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
        let error = export::diffusers_folder(
            &open(&base("tiny-sd21")),
            &Path::new(&folder).join("out"),
            &export::Replaced::default(),
            &[],
        )
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.starts_with("cannot copy ") && text.contains("tiny-sd21/") && text.contains("File too large"),
            "{text}"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Its output is piped: to a file, a log of the tests for one, it would fall under the same limit.
    let output = std::process::Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; ulimit -f 100; exec "$0" --exact folder::a_full_disk_leaves_nothing"#])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
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
    export::diffusers_folder(&open(&base), &out, &export::Replaced::default(), &[]).unwrap();
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
    export::diffusers_folder(&open(&base), &folder.path().join("1"), &export::Replaced::default(), &[]).unwrap();
    assert_eq!(
        json(&folder.path().join("1/model_index.json")),
        json(&common::base("tiny-sd15").join("model_index.json"))
    );

    fs::remove_file(base.join("model_index.json")).unwrap();
    export::diffusers_folder(&open(&base), &folder.path().join("2"), &export::Replaced::default(), &[]).unwrap();
    let mut expected = json(&common::base("tiny-sd15").join("model_index.json"));
    expected.as_object_mut().unwrap().remove("_diffusers_version");
    assert_eq!(json(&folder.path().join("2/model_index.json")), expected);
}

#[test]
fn an_empty_folder_may_be_filled() {
    let folder = tempfile::tempdir().unwrap();
    export::diffusers_folder(&open(&base("tiny-sd15")), folder.path(), &export::Replaced::default(), &[]).unwrap();
    assert!(folder.path().join("model_index.json").exists());
}
