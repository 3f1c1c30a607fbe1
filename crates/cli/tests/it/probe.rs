//! `probe` gives what the reference gave, for every component, through files alone.

use std::path::Path;
use std::process::{Command, Output};

use golden::{assert_close, fixtures};
use tch::{Kind, Tensor};
use weights::{Archive, Tensors};

fn probe(model: &str, component: &str, inputs: &Path, outputs: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args(["probe", "--device", "cpu", "--component", component])
        .arg("--model")
        .arg(fixtures().join(model))
        .arg("--inputs")
        .arg(inputs)
        .arg("--outputs")
        .arg(outputs)
        .args(more)
        .output()
        .unwrap()
}

/// Writes the inputs, runs the probe and reads the outputs.
fn run(model: &str, component: &str, inputs: &[(&str, &Tensor)], more: &[&str]) -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    weights::save(&input, inputs.iter().copied()).unwrap();
    let result = probe(model, component, &input, &output, more);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    Archive::open(&output).unwrap().tensors().unwrap()
}

fn normal(seed: u64, shape: &[i64]) -> Tensor {
    libtorch::random::normal(seed, shape)
}

fn folder(name: &str) -> std::path::PathBuf {
    fixtures().join(name)
}

const F32: (Kind, tch::Device) = (Kind::Float, tch::Device::Cpu);

#[test]
fn unet_with_attention() {
    let (sample, text) = (normal(1, &[2, 4, 16, 16]), normal(2, &[2, 77, 32]));
    let (timestep, tokens) = (Tensor::from_slice(&[3i64, 700]), Tensor::from_slice(&[5i64, 6, 0]));
    let inputs = [("sample", &sample), ("timestep", &timestep), ("encoder_hidden_states", &text)];
    let (model, _) = unet::UNet::from_folder(&folder("tiny-sd21/unet"), F32).unwrap();

    let plain = run("tiny-sd21", "unet", &inputs, &[]);
    assert_eq!(plain.keys().collect::<Vec<_>>(), ["sample"]);
    assert_close("sample", &plain["sample"], &model.forward(&sample, &timestep, &text, None).unwrap(), 1e-6);

    let inputs: Vec<_> = inputs.into_iter().chain([("attention_tokens", &tokens)]).collect();
    // The component's own folder does as well.
    let watched = run("tiny-sd21/unet", "unet", &inputs, &[]);
    let mut maps = unet::AttentionMaps::new([5, 6, 0]);
    let _ = model.forward(&sample, &timestep, &text, Some(&mut maps)).unwrap();
    assert_eq!(watched.len(), 17);
    for map in &maps.maps {
        assert_close(&map.name, &watched[&format!("attention.{}", map.name)], &map.probabilities, 1e-6);
    }
}

#[test]
fn vae_both_ways() {
    let (model, _) = vae::AutoencoderKl::from_folder(&folder("tiny-sd15/vae"), F32).unwrap();
    let (images, noise) = (normal(3, &[1, 3, 32, 24]).tanh(), normal(4, &[1, 4, 4, 3]));
    let encoded = run("tiny-sd15", "vae-encoder", &[("images", &images), ("noise", &noise)], &[]);
    let posterior = model.encode(&images).unwrap();
    assert_close("mean", &encoded["mean"], posterior.mean(), 1e-6);
    assert_close("logvar", &encoded["logvar"], posterior.logvar(), 1e-6);
    assert_close("latents", &encoded["latents"], &(posterior.sample(&noise).unwrap() * 0.18215), 1e-6);
    let decoded = run("tiny-sd15", "vae-decoder", &[("latents", &noise)], &[]);
    assert_close("images", &decoded["images"], &model.decode(&noise).unwrap(), 1e-6);
}

#[test]
fn text_from_bytes_to_hidden_states() {
    let prompts = ["a photo of a cat", ""].map(|text| Tensor::from_slice(text.as_bytes()));
    let ids = &run("tiny-sd21", "tokenizer", &[("a", &prompts[0]), ("b", &prompts[1])], &[])["input_ids"];
    assert_eq!(ids.size(), [2, 77]);
    // BOS, EOS and the pad id of Stable Diffusion 2.x.
    assert_eq!(Vec::<i64>::try_from(ids.get(1).narrow(0, 0, 3)).unwrap(), [1198, 1199, 0]);

    let (model, _) = clip::ClipTextModel::from_folder(&folder("tiny-sd21/text_encoder"), F32).unwrap();
    let hidden = model.forward(ids).unwrap();
    let output = run("tiny-sd21", "text-encoder", &[("input_ids", ids)], &[]);
    assert_close("last_hidden_state", &output["last_hidden_state"], &hidden, 1e-6);
    assert_close("pooler_output", &output["pooler_output"], &model.pooled(&hidden, ids).unwrap(), 1e-6);
    let embeddings = model.embed(ids).unwrap();
    let output = run("tiny-sd21", "text-encoder", &[("inputs_embeds", &embeddings)], &[]);
    assert_close("last_hidden_state", &output["last_hidden_state"], &hidden, 1e-6);
}

#[test]
fn of_sdxl_against_diffusers() {
    let reference = Archive::open(&folder("unet/tiny-sdxl.safetensors")).unwrap().tensors().unwrap();
    let names = ["sample", "encoder_hidden_states", "text_embeds", "time_ids"];
    let mut inputs: Vec<_> = names.iter().map(|&name| (name, &reference[name])).collect();
    inputs.push(("timestep", &reference["timesteps"]));
    let found = run("tiny-sdxl", "unet", &inputs, &[]);
    assert_close("sample", &found["sample"], &reference["output"], 1e-5);

    // The golden file's second prompt: its first one has a token that this model lacks.
    let reference = Archive::open(&folder("pipelines/sdxl-text.safetensors")).unwrap().tensors().unwrap();
    let prompt = Tensor::from_slice("an oil painting of two dogs on the beach".as_bytes());
    let encoded = ["", "-2"].map(|which| {
        let ids = &run("tiny-sdxl", &format!("tokenizer{which}"), &[("prompt", &prompt)], &[])["input_ids"];
        run("tiny-sdxl", &format!("text-encoder{which}"), &[("input_ids", ids)], &[])
    });
    let states = encoded.each_ref().map(|tensors| &tensors["penultimate_hidden_state"]);
    assert_close("prompt_embeds", &Tensor::cat(&states, -1), &reference["prompt_embeds"].narrow(0, 1, 1), 1e-5);
    assert_close("pooled", &encoded[1]["text_embeds"], &reference["pooled_prompt_embeds"].narrow(0, 1, 1), 1e-5);
}

#[test]
fn clip_towers() {
    let (model, _) = clip::ClipModel::from_folder(&folder("tiny-clip"), F32).unwrap();
    let ids = Tensor::from_slice2(&[[1198i64, 320, 1199], [1198, 345, 1199]]);
    let output = run("tiny-clip", "clip-text", &[("input_ids", &ids)], &[]);
    assert_close("text_embeds", &output["text_embeds"], &model.text_features(&ids).unwrap(), 1e-6);

    let image = libtorch::random::integers(5, 256, &[40, 60, 3]).to_kind(Kind::Uint8);
    let processor = clip::ImageProcessor::from_folder(&folder("tiny-clip")).unwrap();
    let pixel_values = processor.process(&image.permute([2, 0, 1])).unwrap().unsqueeze(0);
    let expected = model.image_features(&pixel_values).unwrap();
    for (name, tensor) in [("image", &image), ("pixel_values", &pixel_values)] {
        let output = run("tiny-clip", "clip-image", &[(name, tensor)], &[]);
        assert_close("image_embeds", &output["image_embeds"], &expected, 1e-6);
    }
}

#[test]
fn scheduler_trajectory() {
    let (sample, outputs) = (normal(6, &[1, 4, 2, 2]), normal(7, &[5, 1, 4, 2, 2]));
    let inputs = [("sample", &sample), ("model_outputs", &outputs)];
    let result = run("tiny-sd21", "scheduler", &inputs, &["--steps", "5", "--scheduler", "ddim"]);
    assert_eq!(Vec::<f32>::try_from(&result["timesteps"]).unwrap(), [801.0, 601.0, 401.0, 201.0, 1.0]);
    // The closed form of the first step: x' = √ᾱ' x̂₀ + √(1 − ᾱ') ε (Song et al. 2020, eq. 12).
    let (alpha, previous) = (0.036_546_495_f64, 0.159_816_325_f64);
    let predicted = (&sample - outputs.get(0) * (1.0 - alpha).sqrt()) / alpha.sqrt();
    let expected = predicted * previous.sqrt() + outputs.get(0) * (1.0 - previous).sqrt();
    assert_close("first step", &result["samples"].get(0), &expected, 1e-5);
}

#[test]
fn what_is_wrong_is_said_in_a_sentence_and_nothing_is_written() {
    let temporary = tempfile::tempdir().unwrap();
    let (input, output) = (temporary.path().join("in.safetensors"), temporary.path().join("out.safetensors"));
    let says = |model: &str, component: &str, more: &[&str], words: &str| {
        let result = probe(model, component, &input, &output, more);
        let stderr = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(words), "{stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("frame #"), "{stderr}");
        assert!(!output.exists());
    };
    says("tiny-sd21", "unet", &[], "in.safetensors");
    let (sample, text) = (normal(1, &[1, 4, 8, 8]), normal(2, &[1, 77, 24]));
    let timestep = Tensor::from(3i64);
    weights::save(&input, [("sample", &sample), ("timestep", &timestep)]).unwrap();
    says("tiny-sd21", "unet", &[], "no tensor \"encoder_hidden_states\"; it has: sample, timestep");
    says("no-such-model", "unet", &[], "no-such-model");
    says("tiny-sd21", "unet", &["--config", "/no/config.json"], "/no/config.json");
    says("tiny-sd21", "scheduler", &["--scheduler", "heun"], "heun");
    weights::save(&input, [("sample", &sample), ("timestep", &timestep), ("encoder_hidden_states", &text)]).unwrap();
    says("tiny-sd21", "unet", &[], "width 24 but this U-Net expects 32");
    says("tiny-sd21", "tokenizer", &[], "must be a one-dimensional tensor of bytes");
}

#[test]
fn only_outputs_of_a_probe_are_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (inputs, outputs) = (at("in.safetensors"), at("out.safetensors"));
    weights::save(&inputs, [("a", Tensor::from_slice(b"a cat"))]).unwrap();
    for _ in 0..2 {
        assert!(probe("tiny-sd21", "tokenizer", &inputs, &outputs, &[]).status.success());
    }
    let before = std::fs::read(&inputs).unwrap();
    let pipe = at("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (outputs, words) in [
        (
            inputs.as_path(),
            "in.safetensors: it exists and is not the outputs of a probe; remove it, or name another file",
        ),
        (Path::new("/dev/null"), "/dev/null: it is a device, and only regular files are written"),
        (&pipe, "pipe: it is a named pipe"),
        (folder.path(), "it is a folder"),
    ] {
        let result = probe("tiny-sd21", "tokenizer", &inputs, outputs, &[]);
        let text = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.code() == Some(2) && text.contains(words), "{text}");
    }
    assert!(std::fs::read(&inputs).unwrap() == before);
}
