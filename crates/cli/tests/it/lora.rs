//! LoRA files as a user makes and uses them.

use std::fs;
use std::path::Path;

use tch::{Kind, Tensor};
use weights::Archive;

use crate::common::{model, refuses, stderr, succeed, trained};

/// The most that a colour of two images differs by, of 255.
fn difference(one: &Path, other: &Path) -> u8 {
    let [one, other] = [one, other].map(|path| image::open(path.join("0000-seed3.png")).unwrap().to_rgb8());
    assert_eq!(one.dimensions(), other.dimensions());
    one.as_raw().iter().zip(other.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn an_exported_lora_generates_what_the_run_has_learned() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let (run, base) = (trained(folder, "run", &[]), model());
    let at = |name: &str| folder.join(name).display().to_string();
    let export = |out: &str, more: &[&str]| {
        let out = at(out);
        stderr(&succeed(&[&["export", "--run", &run, "--format", "lora", "--out", &out], more].concat()))
    };
    let generate = |out: &str, more: &[&str]| {
        let prompt = ["--prompt", "a photo of a [V] ball", "--seed", "3", "--steps", "3", "--device", "cpu"];
        let out_folder = at(out);
        stderr(&succeed(&[&["generate", "--out", &out_folder], &prompt[..], more].concat()))
    };

    let said = export("ball.safetensors", &["--rank", "16", "--convolutions", "--full-rest"]);
    assert!(
        said.contains("rank 16 leaves out 0.0 % of the change of its layers; of the whole change, 0.0 % is"),
        "{said}"
    );
    generate("learned", &["--run", &run]);
    let said = generate("merged", &["--model", &base, "--lora", &at("ball.safetensors")]);
    assert!(said.contains("ball.safetensors [V] or <new>"), "{said}");
    assert!(difference(&folder.join("learned"), &folder.join("merged")) <= 1);
    let log = fs::read_to_string(folder.join("merged/generate.jsonl")).unwrap();
    assert!(log.contains("ball.safetensors:1\""), "{log}");

    // Two halves are a whole, and the second brings a token of its own.
    let half = format!("{}:0.5", at("ball.safetensors"));
    let said = generate("halves", &["--model", &base, "--lora", &half, "--lora", &half]);
    assert!(said.contains("ball.safetensors <ball>"), "{said}");
    assert!(difference(&folder.join("learned"), &folder.join("halves")) <= 1);

    // In diffusers' keys the embedding stands beside the file, in whose names it has no place.
    let said = export("low.safetensors", &["--rank", "2", "--lora-keys", "diffusers", "--dtype", "fp16"]);
    assert!(
        said.contains("rank 2 leaves out ") && said.contains("load_textual_inversion low-embedding.safetensors"),
        "{said}"
    );
    let file = Archive::open(&folder.join("low.safetensors")).unwrap();
    assert!(file.shapes().all(|(name, shape)| name.starts_with("unet.") && shape.contains(&2)));
    let (name, _) = file.shapes().next().unwrap();
    assert_eq!(file.tensor(name).unwrap().unwrap().kind(), Kind::Half);
    assert!(folder.join("low-embedding.safetensors").exists() && folder.join("low.txt").exists());
    generate("low", &["--run", &run, "--lora", &at("low.safetensors")]);

    let refuse = |out: &str, more: &[&str], words: &str| {
        let out = at(out);
        refuses(&[&["export", "--run", &run, "--out", &out], more].concat(), words);
    };
    refuse("x.safetensors", &["--rank", "4"], "are for a LoRA: give --format lora, or leave them out");
    refuse("x", &["--format", "lora"], "x must end in .safetensors");
    refuse("ball.safetensors", &["--format", "lora"], "it exists already");
    refuse("x.safetensors", &["--format", "lora"], "the rank 64 cannot be: the largest layers have 16, so use 1 to 16");
    refuse(
        "x.safetensors",
        &["--format", "lora", "--rank", "2", "--full-rest", "--lora-keys", "diffusers"],
        "diffusers reads no full changes (.diff)",
    );
    let sdxl = folder.join("sdxl.safetensors");
    let tensor = Tensor::ones([4, 8], (Kind::Float, tch::Device::Cpu));
    weights::save(&sdxl, [("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", tensor)]).unwrap();
    let use_it = |lora: &str, words: &str| {
        refuses(&["generate", "--model", &base, "--prompt", "a cat", "--out", &at("x"), "--lora", lora], words);
    };
    use_it(sdxl.to_str().unwrap(), "it is a LoRA for SDXL, but this model is Stable Diffusion 1.x or 2.x");
    use_it("nowhere.safetensors", "cannot read nowhere.safetensors");
    use_it("a:inf", "the scale is inf, but must be a finite number");
}
