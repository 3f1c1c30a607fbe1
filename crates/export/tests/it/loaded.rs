//! A model's single file, given as the model, makes the images that its folder makes, and is exported as that is.

use std::fs;
use std::path::Path;

use export::{Components, SingleFile, Unet, diffusers_folder, single_file};
use model_files::{BaseModel, ModelOptions};
use sampling::{Pipeline, Request, Settings};
use tch::Kind;

use crate::common::{self, BASES, F32, TOKEN, assert_same, base, changed_unet, open, read, rows};

/// The folder's configs and tokenizer, which are not the published ones.
fn options(base: &Path) -> ModelOptions {
    ModelOptions { config: Some(base.to_owned()), ..ModelOptions::default() }
}

/// The folder as a single file, opened.
fn as_single_file(base: &Path, folder: &Path, kind: Kind) -> BaseModel {
    let file = folder.join(format!("{}.safetensors", base.file_name().unwrap().display()));
    single_file(&open(base), &file, &export::Replaced::default(), &SingleFile { kind, ..SingleFile::default() })
        .unwrap();
    BaseModel::open(&file, &options(base)).unwrap()
}

fn images(pipeline: &Pipeline, prompt: &str) -> Vec<Vec<u8>> {
    let settings = Settings { steps: 3, height: 64, width: 64, ..pipeline.default_settings() };
    let requests = [Request::new(prompt, 3), Request::new("", 4)];
    let images = pipeline.generate(&requests, &settings, &mut |_| {}).unwrap();
    images.into_iter().map(images::RgbImage::into_raw).collect()
}

#[test]
fn images_are_those_of_the_folder_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    for name in [BASES[0], BASES[1], "miniature"] {
        let base = base(name);
        let single = as_single_file(&base, folder.path(), Kind::Float);
        let [ours, expected] = [Pipeline::open(&single, F32), Pipeline::from_folder(&base, F32)].map(Result::unwrap);
        assert_eq!(ours.default_settings(), expected.default_settings(), "{name}");
        for parameters in
            [[&ours.parameters.unet, &expected.parameters.unet], [&ours.parameters.vae, &expected.parameters.vae]]
        {
            let [ours, expected] = parameters.map(|p| p.iter().collect::<Vec<_>>());
            assert_eq!(ours.len(), expected.len());
            assert!(ours.iter().zip(&expected).all(|(a, b)| a.0 == b.0 && a.1.equal(b.1)), "{name}");
        }
        assert!(images(&ours, "a red bird") == images(&expected, "a red bird"), "{name}");
    }
}

#[test]
fn half_precision_files_are_read_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let base = base("tiny-sd21");
    let single = as_single_file(&base, folder.path(), Kind::Half);
    let pipeline = Pipeline::open(&single, F32).unwrap();
    let expected = read(&base.join("unet"));
    for (name, tensor) in pipeline.parameters.unet.iter() {
        assert!(tensor.equal(&expected[name].to_kind(Kind::Half).to_kind(Kind::Float)), "{name}");
    }
}

#[test]
fn a_single_file_is_exported_as_its_folder_is() {
    let folder = tempfile::tempdir().unwrap();
    for name in BASES {
        let base = base(name);
        let single = as_single_file(&base, folder.path(), Kind::Float);
        let unet = changed_unet(&base);
        let [a, b] = ["a", "b"].map(|file| folder.path().join(format!("{name}-{file}.safetensors")));
        for (model, out) in [(&open(&base), &a), (&single, &b)] {
            single_file(model, out, &export::Replaced::unet(Unet::Tensors(&unet)), &SingleFile::default()).unwrap();
        }
        assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "{name}");

        let [a, b] = ["a", "b"].map(|out| folder.path().join(format!("{name}-{out}")));
        for (model, out) in [(&open(&base), &a), (&single, &b)] {
            diffusers_folder(model, out, &export::Replaced::unet(Unet::Tensors(&unet)), &[(TOKEN, &rows(32))]).unwrap();
        }
        let [from_folder, from_file] =
            [&a, &b].map(|out| Components::of_model(&open(out), &export::Replaced::default()).unwrap());
        assert_same("unet", &from_file.unet, &from_folder.unet);
        assert_same("vae", &from_file.vae, &from_folder.vae);
        assert_same("text_encoder", &from_file.text_encoder, &from_folder.text_encoder);
        let prompt = "a photo of a <dog>";
        let [from_folder, from_file] = [&a, &b].map(|out| images(&Pipeline::from_folder(out, F32).unwrap(), prompt));
        assert!(from_file == from_folder, "{name}");
    }
}

/// Without a new token, and without a U-Net of its own.
#[test]
fn a_single_file_becomes_a_whole_folder() {
    let folder = tempfile::tempdir().unwrap();
    let base = base("tiny-sd21");
    let (single, out) = (as_single_file(&base, folder.path(), Kind::Float), folder.path().join("out"));
    diffusers_folder(&single, &out, &export::Replaced::default(), &[]).unwrap();
    let [ours, expected] = [&out, &base].map(|model| images(&Pipeline::from_folder(model, F32).unwrap(), "a cat"));
    assert!(ours == expected);
    for file in ["unet/config.json", "tokenizer/vocab.json", "scheduler/scheduler_config.json", "model_index.json"] {
        assert!(out.join(file).exists(), "{file}");
    }
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = base("tiny-sd21");
    let path = as_single_file(&base, folder.path(), Kind::Float).path().to_owned();
    let tokenizer = Some(common::base("miniature").join("tokenizer"));
    let single = BaseModel::open(&path, &ModelOptions { tokenizer, ..options(&base) }).unwrap();
    let error = format!("{:#}", Pipeline::open(&single, F32).unwrap_err());
    assert!(error.contains("the tokenizer has 1458 tokens, but the text encoder knows 1200"), "{error}");
    let error = format!("{:#}", Pipeline::from_folder(&path, F32).unwrap_err());
    assert!(error.contains("--model-config"), "{error}");
}
