//! Single files of the published geometries: every tensor finds its place, and every config is that of the published
//! folder.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use clip::{ClipTextModel, ClipTextModelWithProjection, TextConfig};
use common::{Shapes, hollow, hollow_in, original, original_sdxl};
use golden::{Hollow, fixtures};
use model_files::{BaseModel, Component, ModelOptions, PredictionType};
use scheduler::SchedulerConfig;
use serde_json::Map;
use tch::{Device, Kind};
use unet::UNet;
use vae::AutoencoderKl;
use weights::{Init, Parameters};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn shapes(parameters: &Parameters) -> Shapes {
    parameters.iter().map(|(name, tensor)| (name.to_owned(), tensor.size())).collect()
}

/// What the crates of the components expect, built from the model's configs.
fn expected(model: &BaseModel) -> Vec<Shapes> {
    let (unet, vae): (unet::Config, vae::Config) =
        (model.config(Component::Unet).unwrap(), model.config(Component::Vae).unwrap());
    let text: TextConfig = model.config(Component::TextEncoder).unwrap();
    let (_, unet) = weights::build(&Hollow, F32, |vs| UNet::new(vs, &unet)).unwrap();
    let (_, vae) = weights::build(&Hollow, F32, |vs| AutoencoderKl::new(vs, &vae)).unwrap();
    let (_, text) = weights::build(&Hollow, F32, |vs| ClipTextModel::new(vs, &text)).unwrap();
    let second = model.is_sdxl().then(|| {
        let config = model.config(Component::TextEncoder2).unwrap();
        weights::build(&Hollow, F32, |vs| ClipTextModelWithProjection::new(vs, &config)).unwrap().1
    });
    [&unet, &vae, &text].into_iter().chain(&second).map(shapes).collect()
}

fn found(model: &BaseModel) -> Vec<Shapes> {
    let shapes = |component: &Component| {
        let archive = model.archive(*component).unwrap();
        archive.shapes().map(|(name, shape)| (name.to_owned(), shape.to_owned())).collect()
    };
    model.components().iter().map(shapes).collect()
}

fn options(prediction_type: PredictionType) -> ModelOptions {
    ModelOptions { prediction_type: Some(prediction_type), ..ModelOptions::default() }
}

#[test]
fn every_tensor_of_the_original_files_is_a_parameter_of_its_shape() {
    let folder = tempfile::tempdir().unwrap();
    for v2 in [false, true] {
        let path = folder.path().join(format!("{v2}.safetensors"));
        hollow(&path, &original(v2), &[]);
        let model = BaseModel::open(&path, &options(PredictionType::Epsilon)).unwrap();
        assert_eq!(found(&model), expected(&model), "2.x: {v2}");
        assert_eq!(model.files().unwrap(), [("checkpoint.safetensors".to_owned(), path)].into());
        assert_eq!(model.notes().len(), 1, "{:?}", model.notes());
    }
}

#[test]
fn every_tensor_of_sdxls_original_file_is_a_parameter_of_its_shape() {
    let folder = tempfile::tempdir().unwrap();
    let path = hollow_in(folder.path(), &original_sdxl(), &[]);
    let model = BaseModel::open(&path, &ModelOptions::default()).unwrap();
    assert_eq!(found(&model), expected(&model));
    let unet: unet::Config = model.config(Component::Unet).unwrap();
    unet.validate().unwrap();
    assert_eq!(unet::Config { other: Map::new(), ..unet }, unet::Config::sdxl_base());
    assert_eq!(model.config::<TextConfig>(Component::TextEncoder).unwrap(), TextConfig::sd15());
    assert_eq!(model.config::<TextConfig>(Component::TextEncoder2).unwrap(), TextConfig::sdxl_second());
    assert_eq!((model.image_size().unwrap(), model.token_widths().unwrap()), (1024, vec![768, 1280]));
    assert_eq!((model.tokenizer().unwrap().pad_id(), model.second_tokenizer().unwrap().pad_id()), (49407, 0));
    assert!(model.zeros_for_no_prompt().unwrap());

    // As those mark it who have trained it to predict velocity, down to no signal at all.
    let mut shapes = original_sdxl();
    shapes.extend(["v_pred", "ztsnr"].map(|mark| (mark.to_owned(), vec![1])));
    let model = BaseModel::open(&hollow_in(folder.path(), &shapes, &[]), &ModelOptions::default()).unwrap();
    let scheduler = model.scheduler().unwrap();
    assert_eq!(scheduler.prediction_type, PredictionType::VPrediction);
    assert!(scheduler.rescale_betas_zero_snr);
    assert_eq!(model.notes().len(), 1, "{:?}", model.notes());
}

#[test]
fn configs_are_those_of_the_published_folders() {
    let folder = tempfile::tempdir().unwrap();
    let schedulers = |name: &str| SchedulerConfig::from_file(fixtures().join("scheduler").join(name)).unwrap();
    for (v2, prediction, unet, vae, text, scheduler, size) in [
        (false, None, unet::Config::sd15(), vae::Config::sd15(), TextConfig::sd15(), "sd15.json", 512),
        (
            true,
            Some(PredictionType::Epsilon),
            unet::Config::sd21_base(),
            vae::Config::sd21(),
            TextConfig::sd21(),
            "sd21_base.json",
            512,
        ),
        (
            true,
            Some(PredictionType::VPrediction),
            unet::Config::sd21(),
            vae::Config::sd21(),
            TextConfig::sd21(),
            "sd21.json",
            768,
        ),
    ] {
        let path = hollow_in(folder.path(), &original(v2), &[]);
        let options = ModelOptions { prediction_type: prediction, ..ModelOptions::default() };
        let model = BaseModel::open(&path, &options).unwrap();
        let found: unet::Config = model.config(Component::Unet).unwrap();
        found.validate().unwrap();
        assert_eq!(unet::Config { other: Map::new(), ..found }, unet);
        assert_eq!(model.config::<vae::Config>(Component::Vae).unwrap(), vae);
        assert_eq!(model.config::<TextConfig>(Component::TextEncoder).unwrap(), text);
        assert_eq!(model.scheduler().unwrap(), schedulers(scheduler));
        assert_eq!(model.image_size().unwrap(), size);
        let tokenizer = model.tokenizer().unwrap();
        assert_eq!((tokenizer.embedding_rows(), tokenizer.pad_id()), (49408, if v2 { 0 } else { 49407 }));
    }
}

#[test]
fn metadata_say_what_tensors_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let shapes = original(true);
    let open = |metadata: &[(&str, &str)], options: &ModelOptions| {
        let model = BaseModel::open(&hollow_in(folder.path(), &shapes, metadata), options).unwrap();
        let prediction = model.scheduler_json().unwrap()["prediction_type"].as_str().unwrap().to_owned();
        (prediction, model.image_size().unwrap(), model.notes().to_vec())
    };
    let none = ModelOptions::default();
    let said = |metadata: &[(&str, &str)]| {
        let (prediction, size, _) = open(metadata, &none);
        (prediction, size)
    };
    let v = |size: i64| ("v_prediction".to_owned(), size);
    let epsilon = |size: i64| ("epsilon".to_owned(), size);
    assert_eq!(said(&[("modelspec.prediction_type", "v")]), v(768));
    assert_eq!(said(&[("modelspec.prediction_type", "epsilon")]), epsilon(512));
    assert_eq!(said(&[("modelspec.architecture", "stable-diffusion-v2-768-v")]), v(768));
    assert_eq!(said(&[("modelspec.architecture", "stable-diffusion-v2-512")]), epsilon(512));
    let both = [("modelspec.prediction_type", "v"), ("modelspec.resolution", "640x640")];
    assert_eq!(said(&both), v(640));
    // The user knows better.
    let (prediction, size, _) = open(&both, &options(PredictionType::Epsilon));
    assert_eq!((prediction, size), epsilon(640));
    for odd in ["640x512", "square", "0", "100x100"] {
        let (_, size, notes) = open(&[both[0], ("modelspec.resolution", odd)], &none);
        assert_eq!(size, 768);
        assert!(notes[0].contains("modelspec.resolution of ") && notes[0].contains(odd), "{notes:?}");
    }
}

#[test]
fn of_stable_diffusion_2_the_flag_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = hollow_in(folder.path(), &original(true), &[]);
    let error = BaseModel::open(&path, &ModelOptions::default()).unwrap_err().to_string();
    assert!(
        error.contains("does not say what its U-Net predicts: give --prediction-type epsilon")
            && error.contains("--prediction-type v_prediction"),
        "{error}"
    );
}

/// diffusers' script writes no more than it has; the original files and merges of them have more.
#[test]
fn what_is_no_part_of_the_model_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let open = |shapes: &Shapes| {
        BaseModel::open(&hollow_in(folder.path(), shapes, &[]), &options(PredictionType::Epsilon)).unwrap()
    };
    for v2 in [false, true] {
        let mut shapes = original(v2);
        let expected = found(&open(&shapes));
        for (name, shape) in [
            ("alphas_cumprod", vec![1000]),
            ("betas", vec![1000]),
            ("sqrt_recipm1_alphas_cumprod", vec![1000]),
            ("first_stage_model.loss.discriminator.main.0.weight", vec![64, 3, 4, 4]),
            ("cond_stage_model.transformer.text_model.embeddings.position_ids", vec![1, 77]),
            ("cond_stage_model.model.attn_mask", vec![77, 77]),
        ] {
            let text = if v2 { "cond_stage_model.transformer" } else { "cond_stage_model.model" };
            if !name.starts_with(text) {
                shapes.insert(name.to_owned(), shape);
            }
        }
        assert_eq!(found(&open(&shapes)), expected);
        assert_eq!(open(&shapes).notes().len(), 1, "{:?}", open(&shapes).notes());

        for name in ["model_ema.decay", "model_ema.num_updates", "embedding_manager.x"] {
            shapes.insert(name.to_owned(), vec![1]);
        }
        let model = open(&shapes);
        assert_eq!(found(&model), expected);
        assert!(
            model.notes()[1].contains("3 tensors that are no part of the model")
                && model.notes()[1].contains(r#""embedding_manager", "model_ema""#),
            "{:?}",
            model.notes()
        );
    }
}

#[test]
fn text_encoders_in_other_layouts_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let open = |shapes: &Shapes| {
        BaseModel::open(&hollow_in(folder.path(), shapes, &[]), &options(PredictionType::Epsilon)).unwrap()
    };
    // As in files of the NovelAI leak and merges of it, without text_model.
    let v1 = original(false);
    let bare = v1.iter().map(|(name, shape)| (name.replace("transformer.text_model.", "transformer."), shape.clone()));
    assert_eq!(found(&open(&bare.collect())), found(&open(&v1)));

    // diffusers' script writes 23 of OpenCLIP's 24 layers.
    let v2 = original(true);
    let is_unused =
        |name: &str| ["resblocks.23.", "text_projection", "logit_scale"].iter().any(|part| name.contains(part));
    let lacking: Shapes = v2.clone().into_iter().filter(|(name, _)| !is_unused(name)).collect();
    assert!(lacking.len() < v2.len());
    assert_eq!(found(&open(&lacking)), found(&open(&v2)));
    // transformers' names at 2.x's width.
    let text = found(&open(&v2))[2].clone();
    let mut renamed: Shapes = v2.into_iter().filter(|(name, _)| !name.starts_with("cond_stage_model.")).collect();
    renamed.extend(text.iter().map(|(name, shape)| (format!("cond_stage_model.transformer.{name}"), shape.clone())));
    let model = open(&renamed);
    assert_eq!(found(&model)[2], text);
    assert_eq!(model.tokenizer().unwrap().pad_id(), 0);
}

#[test]
fn tensors_that_do_not_fit_are_named_in_both_layouts() {
    let folder = tempfile::tempdir().unwrap();
    let problem = |v2: bool, component: Component, change: &dyn Fn(&mut Shapes)| {
        let mut shapes = original(v2);
        change(&mut shapes);
        let model =
            BaseModel::open(&hollow_in(folder.path(), &shapes, &[]), &options(PredictionType::Epsilon)).unwrap();
        let result = model.build(component, F32, |vs| {
            // Nothing is read but what is asked for here.
            Ok(vs.get("time_embedding.linear_1.bias", &[1280], Init::Const(0.0)).numel()
                + vs.get("text_model.encoder.layers.3.self_attn.k_proj.bias", &[768], Init::Const(0.0)).numel())
        });
        result.unwrap_err().to_string()
    };
    let text = problem(false, Component::Unet, &|shapes| {
        shapes.remove("model.diffusion_model.time_embed.0.bias");
        shapes.insert("model.diffusion_model.odd".to_owned(), vec![1]);
    });
    assert!(
        text.contains("time_embedding.linear_1.bias (in the file model.diffusion_model.time_embed.0.bias)"),
        "{text}"
    );
    assert!(text.contains("unexpected") && text.contains("model.diffusion_model.odd"), "{text}");
    let text = problem(true, Component::TextEncoder, &|shapes| {
        shapes.remove("cond_stage_model.model.transformer.resblocks.3.attn.in_proj_bias");
    });
    let expected = "text_model.encoder.layers.3.self_attn.k_proj.bias (in the file \
                    cond_stage_model.model.transformer.resblocks.3.attn.in_proj_bias)";
    assert!(text.contains(expected), "{text}");
    let text = problem(false, Component::TextEncoder, &|shapes| {
        shapes.remove("cond_stage_model.transformer.text_model.encoder.layers.3.self_attn.k_proj.bias");
    });
    assert!(
        text.contains("(in the file cond_stage_model.transformer.text_model.encoder.layers.3.self_attn.k_proj.bias)")
    );
}

#[test]
fn configs_and_tokenizer_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let config = Some(fixtures().join("tiny-sd21"));
    let path = hollow_in(folder.path(), &original(true), &[("modelspec.prediction_type", "v")]);
    let given = ModelOptions { config: config.clone(), ..ModelOptions::default() };
    let error = BaseModel::open(&path, &given).unwrap_err().to_string();
    assert!(error.contains("predicts v_prediction") && error.contains("decide with --prediction-type"), "{error}");

    let given = ModelOptions { prediction_type: Some(PredictionType::VPrediction), ..given };
    let model = BaseModel::open(&path, &given).unwrap();
    assert_eq!(model.scheduler_json().unwrap()["prediction_type"], "v_prediction");
    assert_eq!(model.image_size().unwrap(), 128);
    assert_eq!(model.tokenizer().unwrap().embedding_rows(), 1200);
    let files = model.files().unwrap();
    assert_eq!(files["checkpoint.safetensors"], path);
    assert!(files["tokenizer/vocab.json"].ends_with("tiny-sd21/tokenizer/vocab.json"), "{files:?}");
    assert!(files.contains_key("configs/unet/config.json") && files.values().all(|file| file.is_file()), "{files:?}");

    let tokenizer = Some(fixtures().join("miniature/tokenizer"));
    let model = BaseModel::open(&path, &ModelOptions { tokenizer, ..given }).unwrap();
    assert_eq!(model.tokenizer().unwrap().embedding_rows(), 1458);
    let error = BaseModel::open(&path, &ModelOptions { config: Some(Path::new("/no").to_owned()), ..model_options() });
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.starts_with("the folder with the configs (--model-config): there is no model folder /no"), "{error}");
}

fn model_options() -> ModelOptions {
    ModelOptions::default()
}

#[test]
fn other_geometries_need_the_flag_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut shapes = original(false);
    *shapes.get_mut("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight").unwrap() =
        vec![49409, 768];
    let path = hollow_in(folder.path(), &shapes, &[]);
    let error = BaseModel::open(&path, &model_options()).unwrap_err().to_string();
    assert!(error.contains("has 49409 tokens") && error.contains("--tokenizer"), "{error}");

    let mut shapes = original(false);
    shapes.get_mut("model.diffusion_model.input_blocks.0.0.weight").unwrap()[0] = 64;
    let path = hollow_in(folder.path(), &shapes, &[]);
    let error = BaseModel::open(&path, &model_options()).unwrap_err().to_string();
    assert!(
        error.contains("a U-Net of 64 channels for texts of width 768") && error.contains("--model-config"),
        "{error}"
    );
}

#[test]
fn a_folder_says_it_all_itself() {
    let path = fixtures().join("tiny-sd21");
    let model = BaseModel::open(&path, &model_options()).unwrap();
    assert!(model.notes().is_empty() && model.folder().is_some());
    let error = BaseModel::open(&path, &options(PredictionType::Epsilon)).unwrap_err().to_string();
    assert!(
        error.contains("is a folder, whose configs and tokenizer count: --tokenizer, --prediction-type"),
        "{error}"
    );
    assert!(fs::read_dir(&path).unwrap().count() > 0);
}
