//! A checkpoint in one file as `--model`, everywhere that a model is named.

use std::fs;
use std::path::Path;

use export::SingleFile;
use golden::fixtures;
use model_files::BaseModel;
use options::ModelOptions;
use tch::{Kind, Tensor};

use crate::common::{CHANGED, json, model, photos, program, refuses, stderr, succeed, train, trained};

/// The tiny model as a single file, and the flags that it needs, for its configs are not the published ones.
fn single_file(folder: &Path) -> (String, [String; 2]) {
    let base = BaseModel::open(Path::new(&model()), &ModelOptions::default()).unwrap();
    let file = folder.join("tiny.safetensors");
    export::single_file(&base, &file, &export::Replaced::default(), &SingleFile::default()).unwrap();
    (file.display().to_string(), ["--model-config".to_owned(), model()])
}

/// All images of a call, with the prompts, in one.
fn generate(folder: &Path, prompt: &str, more: &[&str]) -> Vec<u8> {
    let out = tempfile::tempdir_in(folder).unwrap().keep().display().to_string();
    let fixed = ["generate", "--device", "cpu", "--prompt", prompt, "--steps", "2", "--out", &out];
    succeed(&[&fixed, more].concat());
    image::open(Path::new(&out).join("0000-seed0.png")).unwrap().into_rgb8().into_raw()
}

#[test]
fn a_run_on_a_single_file_is_the_run_on_its_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let (file, config) = single_file(folder);
    let flags = ["--model", &file, &config[0], &config[1], "--prior-preservation", "--prior-images", "2"];
    let prior = ["--set", "prior.steps=2"];
    let expected = trained(folder, "folder", &[&prior[..], &["--prior-preservation", "--prior-images", "2"]].concat());
    // Given again, --model would be the last one that counts.
    let run = trained(folder, "single", &[&prior[..], &flags].concat());
    for changed in CHANGED {
        let [ours, expected] = [&run, &expected].map(|run| fs::read(Path::new(run).join(changed)).unwrap());
        assert!(ours == expected, "{changed}");
    }
    let record = json(&Path::new(&run).join("config.json"));
    assert_eq!(record["config"]["model_options"], serde_json::json!({ "config": model() }));
    assert!(json(&Path::new(&expected).join("config.json"))["config"].get("model_options").is_none());

    // What comes after a run needs no flags again.
    let images = [&run, &expected].map(|run| generate(folder, "a [V] ball", &["--run", run]));
    assert!(images[0] == images[1]);
    succeed(&["inspect", "--device", "cpu", "--run", &run, "--images", "1", "--steps", "1"]);
    succeed(&["attend", "--device", "cpu", "--run", &run, "--prompt", "a [V]", "--phases", "--steps", "1"]);
    let clip = fixtures().join("tiny-clip").display().to_string();
    let evaluate = ["--prompts", "core-inanimate", "--images", "1", "--steps", "1", "--base", "--clip", &clip];
    succeed(
        &[&["evaluate", "--device", "cpu", "--run", &run, "--height", "64", "--width", "64"], &evaluate[..]].concat(),
    );
    succeed(&["report", "--run", &run]);

    let [a, b] = [&run, &expected].map(|run| {
        let out = format!("{run}-exported");
        succeed(&["export", "--run", run, "--out", &out]);
        // Of the same name: it stands in the metadata.
        fs::create_dir(format!("{run}-file")).unwrap();
        let out = format!("{run}-file/exported.safetensors");
        succeed(&["export", "--run", run, "--out", &out, "--format", "single-file"]);
        fs::read(out).unwrap()
    });
    assert!(a == b);
    let images = [&run, &expected].map(|run| {
        let model = format!("{run}-exported");
        generate(folder, "a <new> ball", &["--model", &model])
    });
    assert!(images[0] == images[1]);
}

#[test]
fn a_model_is_a_single_file_wherever_it_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let (file, config) = single_file(folder);
    let flags = ["--model", &file, &config[0], &config[1]];
    let folder_model = model();
    assert!(generate(folder, "a ball", &flags) == generate(folder, "a ball", &["--model", &folder_model]));
    let out = folder.join("attend").display().to_string();
    let fixed = ["attend", "--device", "cpu", "--prompt", "a ball", "--steps", "1", "--out", &out];
    let said = stderr(&succeed(&[&fixed[..], &flags].concat()));
    assert!(said.contains("tiny.safetensors is read by the configs in "), "{said}");

    let inputs = folder.join("in.safetensors");
    let tensor = |shape: &[i64]| libtorch::random::normal(1, shape);
    let ids = Tensor::arange(77, (Kind::Int64, tch::Device::Cpu)).unsqueeze(0);
    let text = Tensor::from_slice(b"a ball");
    for (component, tensors) in [
        ("vae-decoder", vec![("latents", tensor(&[1, 4, 8, 8]))]),
        ("text-encoder", vec![("input_ids", ids)]),
        ("tokenizer", vec![("0", text)]),
        ("scheduler", vec![("sample", tensor(&[4])), ("model_outputs", tensor(&[3, 4]))]),
    ] {
        weights::save(&inputs, tensors).unwrap();
        let inputs = inputs.display().to_string();
        let [a, b] = [&flags[..], &["--model", &folder_model]].map(|model| {
            let out = folder.join("out.safetensors");
            let shown = out.display().to_string();
            let fixed =
                ["probe", "--device", "cpu", "--component", component, "--inputs", &inputs, "--outputs", &shown];
            succeed(&[&fixed, model, &["--steps", "2"]].concat());
            fs::read(out).unwrap()
        });
        assert!(a == b, "{component}");
    }
}

#[test]
fn what_a_single_file_needs_is_said() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let (file, config) = single_file(folder);
    let generate = ["generate", "--device", "cpu", "--prompt", "a"];
    let with = |more: &[&'static str]| [&generate[..], more].concat();
    refuses(
        &[&generate[..], &["--model", &file]].concat(),
        "name a diffusers folder with its configs by --model-config",
    );
    let model = model();
    let given = [&generate[..], &["--model", &model, &config[0], &config[1]]].concat();
    refuses(&given, "is a folder, whose configs and tokenizer count");
    refuses(&with(&["--model", "x", "--prediction-type", "v"]), "possible values: epsilon, v_prediction");
    refuses(&with(&["--run", "x", "--prediction-type", "epsilon"]), "cannot be used with");
    refuses(&with(&["--model", "/no/model.safetensors"]), "there is no model file /no/model.safetensors");
    let embedding = fixtures().join("export/embeddings/kohya.safetensors").display().to_string();
    refuses(&[&generate[..], &["--model", &embedding]].concat(), "is the embedding of a token, but a model is a whole");
    photos(&folder.join("photos"));
    let output = train(folder, "run", &["--model", &embedding]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is the embedding of a token"), "{}", stderr(&output));
    assert!(!folder.join("run").exists());
    assert!(program(&["generate", "--help"]).status.success());
}
