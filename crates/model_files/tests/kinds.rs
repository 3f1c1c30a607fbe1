//! What is no Stable Diffusion 1.x, 2.x or XL is named, in one sentence.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{Shapes, hollow_in};
use golden::fixtures;
use model_files::{BaseModel, ModelOptions, PredictionType};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    diffusers: String,
    tensors: Shapes,
}

fn options() -> ModelOptions {
    ModelOptions { prediction_type: Some(PredictionType::Epsilon), ..ModelOptions::default() }
}

fn message(path: &Path) -> String {
    let text = format!("{:#}", BaseModel::open(path, &options()).unwrap_err());
    assert!(text.contains(&path.display().to_string()) && !text.contains('\n'), "{text}");
    text
}

/// That a few tensors make no whole model is found out later: when they are loaded.
#[test]
fn kinds_are_those_that_diffusers_tells_apart() {
    let cases: Vec<Case> = weights::read_config(&fixtures().join("model_files/kinds.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for Case { name, diffusers, tensors } in cases {
        let path = hollow_in(folder.path(), &tensors, &[]);
        let words = match diffusers.as_str() {
            "v1" => {
                let notes = BaseModel::open(&path, &options()).unwrap().notes().join("\n");
                assert!(
                    notes.contains("is taken for Stable Diffusion 1.x that predicts epsilon at 512 pixels"),
                    "{notes}"
                );
                continue;
            }
            "v2" => {
                let notes = BaseModel::open(&path, &options()).unwrap().notes().join("\n");
                assert!(
                    notes.contains("is taken for Stable Diffusion 2.x that predicts epsilon at 512 pixels"),
                    "{notes}"
                );
                continue;
            }
            "xl_base" => {
                let notes = BaseModel::open(&path, &ModelOptions::default()).unwrap().notes().join("\n");
                assert!(
                    notes.contains("is taken for Stable Diffusion XL that predicts epsilon at 1024 pixels"),
                    "{notes}"
                );
                continue;
            }
            "inpainting" | "inpainting_v2" => "is an inpainting checkpoint (9 input channels)",
            "instruct-pix2pix" => "InstructPix2Pix (8 input channels)",
            "xl_refiner" => "is a checkpoint of SDXL's refiner, which refines images of SDXL's base model,",
            "sd3" => "is a checkpoint of Stable Diffusion 3,",
            "flux-schnell" | "flux-dev" => "is a checkpoint of Flux,",
            "controlnet" => "is a ControlNet,",
            // diffusers looks at the number of input channels later.
            other => panic!("{name}: {other}"),
        };
        let text = message(&path);
        assert!(text.contains(words), "{name}: {text}");
    }
}

#[test]
fn parts_and_companions_of_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let says = |tensors: &[(&str, &[i64])], words: &str| {
        let shapes = tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        let text = message(&hollow_in(folder.path(), &shapes, &[]));
        assert!(text.contains(words), "{text}");
    };
    let conv = [320, 4, 3, 3].as_slice();
    let unet = ("model.diffusion_model.input_blocks.0.0.weight", conv);
    let vae = ("first_stage_model.encoder.conv_in.weight", [128, 3, 3, 3].as_slice());
    let text = ("cond_stage_model.transformer.text_model.final_layer_norm.weight", [768].as_slice());
    says(&[unet, vae], "is a checkpoint without the text encoder (cond_stage_model.transformer.*),");
    says(&[unet, text], "is a checkpoint without the VAE (first_stage_model.*),");
    says(&[unet], "without the VAE (first_stage_model.*) and the text encoder (cond_stage_model.transformer.*),");
    says(&[("encoder.conv_in.weight", conv), ("decoder.conv_in.weight", conv)], "is a VAE alone,");
    says(&[vae, ("first_stage_model.decoder.conv_in.weight", conv)], "is a VAE alone,");
    says(&[("lora_unet_down_blocks_0.lora_down.weight", &[4, 320])], "is a LoRA or another adapter,");
    says(&[("unet.down_blocks.0.attn.to_q.lora_A.weight", &[4, 320])], "is a LoRA or another adapter,");
    says(&[("emb_params", &[2, 768])], "is the embedding of a token,");
    says(&[("<dog>", &[1024])], "is the embedding of a token,");
    says(&[("down_blocks.0.x", conv), ("up_blocks.0.x", conv)], "is a U-Net alone, in the diffusers layout,");
    says(&[("text_model.embeddings.token_embedding.weight", &[49408, 768])], "is a text encoder alone,");
    says(&[("some.thing", conv)], "is no model that is known here,");
    says(&[], "is no model that is known here,");
    let label = ("model.diffusion_model.label_emb.0.0.weight", [1280, 2048].as_slice());
    says(&[unet, vae, text, label], "whose U-Net takes a class, such as an upscaler or unCLIP,");
    let sizes = ("model.diffusion_model.label_emb.0.0.weight", [1280, 2816].as_slice());
    says(&[unet, vae, sizes], "is a checkpoint of SDXL without its text encoders (conditioner.embedders.*),");
    let second = ("conditioner.embedders.1.model.ln_final.weight", [1280].as_slice());
    says(&[unet, vae, second, ("edm_mean", &[4])], "is an EDM checkpoint of SDXL, such as Playground 2.5,");
    let depth = ("model.diffusion_model.input_blocks.0.0.weight", [320, 5, 3, 3].as_slice());
    says(&[depth, vae, text], "is a depth-to-image checkpoint (5 input channels),");
}

#[test]
fn files_that_are_no_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    };
    assert!(message(&file("a.ckpt", b"PK")).contains("is a pickle file"));
    assert!(message(&file("a.safetensors", b"not tensors at all")).contains("is not a valid safetensors file"));
    assert!(message(&file("b.safetensors", b"")).contains("b.safetensors"));
    assert!(message(&folder.path().join("none.safetensors")).contains("there is no model file"));
    assert!(message(&folder.path().join("none")).contains("there is no model folder"));
}
