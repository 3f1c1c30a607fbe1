//! Runs of Custom Diffusion in one model, and in files of their own.

use std::fs;
use std::path::Path;

use golden::copy_folder;
use sampling::Pipeline;
use tch::{Device, Kind, Tensor};
use weights::Archive;

use crate::common::{self, difference, model, photos, refuses, succeed, text};

/// A run in a few steps, which change much.
fn train(folder: &Path, out: &str, more: &str) -> String {
    photos(&folder.join("photos"));
    let (out, photos, model) = (text(&folder.join(out)), text(&folder.join("photos")), model());
    let fixed = "train --device cpu --resolution 64 --batch-size 2 --results none --set validation.steps=1";
    let paths = ["--model", &model, "--concept", &photos, "--out", &out];
    succeed(&fixed.split(' ').chain(paths).chain(more.split(' ')).collect::<Vec<_>>());
    out
}

const CUSTOM: &str =
    "--method custom-diffusion --steps 3 --learning-rate 1e-2 --prior-images 1 --set prior.steps=1 --category";

fn generate(out: &Path, more: &[&str]) -> std::path::PathBuf {
    let out = text(out);
    let fixed = [
        "generate",
        "--device",
        "cpu",
        "--guidance-scale",
        "3",
        "--steps",
        "2",
        "--seed",
        "3",
        "--scheduler",
        "ddim",
        "--out",
        &out,
    ];
    succeed(&[&fixed[..], more].concat());
    Path::new(&out).join("0000-seed3.png")
}

/// What the keys and values make of a subject's words.
fn keys_values(pipeline: &Pipeline, token: &str, prompt: &str) -> Vec<Tensor> {
    let ids = pipeline.tokenizer.encode(prompt).unwrap().ids;
    let start = ids.iter().position(|id| pipeline.tokenizer.vectors(token).contains(id)).unwrap();
    let end = ids.iter().position(|id| *id == pipeline.tokenizer.eos_id()).unwrap();
    let states = pipeline.encode_prompts(&[prompt]).unwrap().hidden_states.get(0);
    let states = states.narrow(0, start as i64, (end + 1 - start) as i64);
    let weights = pipeline
        .parameters
        .unet
        .iter()
        .filter(|(name, _)| name.contains(".attn2.to_k") || name.contains(".attn2.to_v"));
    weights.map(|(_, weight)| states.matmul(&weight.tr())).collect()
}

#[test]
fn merged_runs_are_one_model_with_the_subjects_of_all() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let ball = train(folder, "ball", &format!("{CUSTOM} ball"));
    let cat = train(folder, "cat", &format!("{CUSTOM} cat --set placeholder=<new2>"));
    let merged = text(&folder.join("merged"));
    let output = succeed(&["merge", &ball, &cat, "--out", &merged]);
    assert!(
        common::stderr(&output).contains("a photo of a <new1> ball and a <new2> cat"),
        "{}",
        common::stderr(&output)
    );
    generate(&folder.join("images"), &["--model", &merged, "--prompt", "a <new1> ball and a <new2> cat"]);
    let usage = fs::read_to_string(folder.join("merged/usage.txt")).unwrap();
    assert_eq!(usage, "Prompts name what this model has learned <new1> and <new2>.\n");

    // Of each run, what the weights make of its subject is kept, though they change; all other parameters are the base model's.
    let open = |folder: &str| Pipeline::from_folder(Path::new(folder), (Kind::Float, Device::Cpu)).unwrap();
    let (base, merged) = (open(&model()), open(&merged));
    for (run, token, noun) in [(&ball, "<new1>", "ball"), (&cat, "<new2>", "cat")] {
        let exported = format!("{run}-exported");
        succeed(&["export", "--run", run, "--out", &exported]);
        let alone = open(&exported);
        for prompt in [format!("{token} {noun}"), format!("photo of a {token} {noun}")] {
            let ours = keys_values(&merged, token, &prompt);
            let theirs = keys_values(&alone, token, &prompt);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let error = (ours - theirs).abs().max().double_value(&[]) / theirs.abs().max().double_value(&[]);
                assert!(error < 1e-4, "{prompt}: {error}");
            }
        }
    }
    for (name, tensor) in base.parameters.unet.iter() {
        let same = tensor.equal(merged.parameters.unet.get(name).unwrap());
        let learned = name.contains(".attn2.to_k") || name.contains(".attn2.to_v");
        assert_eq!(same, !learned, "{name}");
    }

    // Three runs, one of which has learned two subjects.
    let further = format!("{}:dog", text(&folder.join("photos")));
    let both = train(folder, "both", &format!("{CUSTOM} tree --set placeholder=<new> --add-concept {further}"));
    let exported = text(&folder.join("both-exported"));
    succeed(&["export", "--run", &both, "--out", &exported]);
    let second = ["--model", &exported, "--prompt", "a <new> tree and a <new2> dog"];
    let by_run = ["--run", &both, "--prompt", "a <new> tree and a <new2> dog"];
    let [a, b] = [("a", second), ("b", by_run)].map(|(name, more)| generate(&folder.join(name), &more));
    assert!(difference(&a, &b) <= 1);
    let out = text(&folder.join("out"));
    refuses(&["merge", &ball, &cat, &both, "--out", &out], "the placeholder <new2> is that of the runs in");
    succeed(&["merge", &ball, &both, "--out", &out]);
    refuses(&["merge", &ball, &both, "--out", &out], "is not empty; choose another folder");

    let out = text(&folder.join("refused"));
    refuses(&["merge", &ball, &ball, "--out", &out], "--set 'placeholder=<new2>'");
    let few = text(&folder.join("few.txt"));
    fs::write(&few, "a cat on the beach\n").unwrap();
    refuses(&["merge", &ball, &cat, "--out", &out, "--captions", &few], "give more captions with --captions");
    refuses(&["merge", &ball, &cat, "--out", &out, "--captions", "no"], "there is no caption set and no file called");
    let inversion = train(folder, "inversion", "--method textual-inversion --steps 1 --category ball");
    refuses(&["merge", &ball, &inversion, "--out", &out], "is of the method textual-inversion");
    let other = folder.join("model");
    copy_folder(Path::new(&model()), &other);
    let config = other.join("unet/config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "\n").unwrap();
    let moved = train(folder, "moved", &format!("{CUSTOM} cat --set placeholder=<new2> --model {}", text(&other)));
    refuses(&["merge", &ball, &moved, "--out", &out], "merge runs of one base model");
    assert!(!Path::new(&out).exists());
}

#[test]
fn custom_diffusions_own_file_is_written_and_generates_the_same() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let run = train(folder, "run", &format!("{CUSTOM} ball"));
    let [file, token] = ["ball.safetensors", "<new1>.safetensors"].map(|name| text(&folder.join(name)));
    let export = ["export", "--run", &run, "--format", "custom-diffusion", "--out"];
    succeed(&[&export[..], &[&file]].concat());
    refuses(&[&export[..], &[&file]].concat(), "ball.safetensors");
    let archive = Archive::open(Path::new(&file)).unwrap();
    let ending = |name: &str| {
        name.ends_with(".attn2.processor.to_k_custom_diffusion.weight")
            || name.ends_with(".attn2.processor.to_v_custom_diffusion.weight")
    };
    assert!(archive.shapes().count() > 0 && archive.shapes().all(|(name, _)| ending(name)));

    let by_run = generate(&folder.join("a"), &["--run", &run, "--prompt", "a <new1> ball"]);
    let model = model();
    let of_file = ["--model", &model, "--embedding", &token, "--lora", &file, "--prompt", "a <new1> ball"];
    assert_eq!(difference(&by_run, &generate(&folder.join("b"), &of_file)), 0);
    // At a scale of 0 it is the base model with the embedding.
    let (none, scaled) = (&of_file[..4], format!("{file}:0"));
    let plain = generate(&folder.join("c"), &[none, &of_file[6..]].concat());
    let zero = generate(&folder.join("d"), &[none, &["--lora", &scaled], &of_file[6..]].concat());
    assert!(difference(&plain, &zero) == 0 && difference(&plain, &by_run) > 0);
    let out = text(&folder.join("e"));
    let twice = ["generate", "--device", "cpu", "--out", &out, "--lora", &file];
    refuses(&[&twice[..], &of_file].concat(), "merge their runs with `merge`");

    let inversion = train(folder, "inversion", "--method textual-inversion --steps 1 --category ball");
    let out = text(&folder.join("other.safetensors"));
    refuses(&["export", "--run", &inversion, "--format", "custom-diffusion", "--out", &out], "give another --format");
}
