//! SDXL: subjects learned on it, and what becomes of them elsewhere. That diffusers loads the files, and generates the same image of
//! them, is checked by fixtures/export/check_sdxl.py.

use golden::fixtures;
use weights::Archive;

use crate::common::{difference, model, refuses, stderr, succeed, trained};

const PROMPT: &str = "a photo of a [V] ball";

fn sdxl() -> String {
    fixtures().join("tiny-sdxl").display().to_string()
}

#[test]
fn what_was_learned_generates_the_same_in_every_form() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let base = sdxl();
    let lora = ["--method", "attndreambooth-lora", "--rank", "4", "--set", "phases.unet.learning_rate=1e-2"];
    let of_lora = trained(folder, "lora", &[&["--model", &base], &lora[..]].concat());
    let whole = trained(folder, "whole", &["--model", &base]);
    let at = |name: &str| folder.join(name).display().to_string();
    let generate = |out: &str, more: &[&str]| {
        let size = ["--seed", "3", "--steps", "3", "--height", "64", "--width", "64", "--device", "cpu"];
        let out_folder = at(out);
        succeed(&[&["generate", "--out", &out_folder], &size[..], more].concat());
        folder.join(out).join("0000-seed3.png")
    };
    let export = |out: &str, more: &[&str]| {
        let out = at(out);
        stderr(&succeed(&[&["export", "--out", &out], more].concat()))
    };
    let expected = generate("of-lora", &["--run", &of_lora, "--prompt", PROMPT]);
    let of_whole = generate("of-whole", &["--run", &whole, "--prompt", PROMPT]);
    let of_base = generate("of-base", &["--model", &base, "--prompt", "a photo of a ball"]);
    assert!(difference(&expected, &of_base) > 5 && difference(&of_whole, &of_base) > 5);
    let equals = |out: &str, expected: &std::path::Path, more: &[&str]| {
        let worst = difference(&generate(out, more), expected);
        assert!(worst <= 1, "{out} differs by {worst}");
    };

    // kohya's keys with the original code's names, and both embeddings in the file.
    export("kohya.safetensors", &["--run", &of_lora, "--format", "lora"]);
    let file = Archive::open(&folder.join("kohya.safetensors")).unwrap();
    let names: Vec<&str> = file.shapes().map(|(name, _)| name).collect();
    assert!(names.contains(&"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight"));
    assert!(names.contains(&"bundle_emb.<new>.clip_l") && names.contains(&"bundle_emb.<new>.clip_g"));
    equals("kohya", &expected, &["--model", &base, "--lora", &at("kohya.safetensors"), "--prompt", PROMPT]);

    // diffusers', with the embeddings in a file of their own, which a run has too.
    let said = export("low.safetensors", &["--run", &of_lora, "--format", "lora", "--lora-keys", "diffusers"]);
    assert!(said.contains("clip_l and clip_g"), "{said}");
    for embedding in [at("low-embedding.safetensors"), format!("{of_lora}/learned_embeds.safetensors")] {
        let shapes: Vec<_> =
            Archive::open(embedding.as_ref()).unwrap().shapes().map(|(n, s)| (n.to_owned(), s.to_vec())).collect();
        assert_eq!(shapes, [("clip_g".to_owned(), vec![1, 20]), ("clip_l".to_owned(), vec![1, 12])]);
    }
    let prompt = "a photo of a low-embedding ball";
    let files = ["--lora", &at("low.safetensors"), "--embedding", &at("low-embedding.safetensors")];
    equals("low", &expected, &[&["--model", &base, "--prompt", prompt], &files[..]].concat());

    export("folder", &["--run", &of_lora, "--format", "diffusers"]);
    equals("of-folder", &expected, &["--model", &at("folder"), "--prompt", "a photo of a <new> ball"]);

    export("file.safetensors", &["--run", &whole, "--format", "single-file"]);
    let prompt = "a photo of a file-embedding ball";
    let files =
        ["--model", &at("file.safetensors"), "--model-config", &base, "--embedding", &at("file-embedding.safetensors")];
    equals("of-file", &of_whole, &[&["--prompt", prompt], &files[..]].concat());
}

/// As kohya's scripts write it: the U-Net's layers by the original code's names, a convolution among them, and both text encoders'.
#[test]
fn a_lora_made_elsewhere_generates_diffusers_image() {
    let temporary = tempfile::tempdir().unwrap();
    let reference = Archive::open(&fixtures().join("pipelines/sdxl-lora.safetensors")).unwrap().tensors().unwrap();
    let lora = format!("{}:0.7", fixtures().join("pipelines/sdxl-lora-file.safetensors").display());
    for (name, more) in [("without", &[][..]), ("image", &["--lora", &lora])] {
        let out = temporary.path().join(name);
        let (base, out_folder) = (sdxl(), out.display().to_string());
        let image = ["--prompt", "an oil painting of two dogs on the beach", "--seed", "3", "--steps", "4"];
        let size = ["--guidance-scale", "5", "--height", "64", "--width", "64", "--device", "cpu"];
        succeed(&[&["generate", "--model", &base, "--out", &out_folder], &image[..], &size, more].concat());
        let found = image::open(out.join("0000-seed3.png")).unwrap().to_rgb8();
        let expected: Vec<u8> = Vec::try_from(reference[name].flatten(0, -1)).unwrap();
        let worst = found.as_raw().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 1 && found.as_raw().len() == expected.len(), "{name} differs by {worst}");
    }
}

#[test]
fn what_is_of_another_model_is_told_with_both_names() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let at = |name: &str| folder.join(name).display().to_string();
    let (base, other) = (sdxl(), model());
    let generate = |model: &str, more: &[&str], words: &str| {
        let out = at("x");
        refuses(&[&["generate", "--model", model, "--prompt", "a cat", "--out", &out], more].concat(), words);
    };
    let [embedding, both, lora] =
        ["embedding", "both", "lora"].map(|name| folder.join(name).with_extension("safetensors"));
    let ones = |shape: &[i64]| tch::Tensor::ones(shape, (tch::Kind::Float, tch::Device::Cpu));
    weights::save(&embedding, [("<dog>", ones(&[1, 30]))]).unwrap();
    weights::save(&both, [("clip_l", ones(&[1, 12])), ("clip_g", ones(&[1, 20]))]).unwrap();
    weights::save(&lora, [("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", ones(&[4, 32]))]).unwrap();
    let [embedding, both, lora] = [embedding, both, lora].map(|file| file.display().to_string());
    weights::save(both.as_ref(), [("clip_l", ones(&[1, 20])), ("clip_g", ones(&[1, 12]))]).unwrap();
    generate(&base, &["--embedding", &both], "has width 20, but this model's text encoder has 12");
    generate(&base, &["--embedding", &embedding], "holds no embedding for SDXL, which has two text encoders");
    generate(
        &other,
        &["--embedding", &both],
        "for the two text encoders of Stable Diffusion XL (clip_l, clip_g), but this model",
    );
    generate(&base, &["--lora", &lora], "it is a LoRA for Stable Diffusion 1.x or 2.x, but this model is SDXL");
    generate(
        &base,
        &["--height", "24"],
        "the height 24 is too small for SDXL, which was trained with images of 128 pixels: use 32 or more",
    );
    for method in ["neti", "vico"] {
        let words = format!("the method {method} is for Stable Diffusion 1.x and 2.x, but this model is SDXL");
        let photos = fixtures().join("subjects/penguin").display().to_string();
        let out = at(method);
        refuses(
            &["train", "--method", method, "--model", &base, "--concept", &photos, "--category", "ball", "--out", &out],
            &words,
        );
    }
    let lacking = folder.join("lacking");
    golden::copy_folder(base.as_ref(), &lacking);
    std::fs::remove_dir_all(lacking.join("tokenizer_2")).unwrap();
    generate(
        lacking.to_str().unwrap(),
        &[],
        "is SDXL, since it has a text_encoder_2, but not complete: it has no tokenizer_2",
    );
}
