//! The main job with the model that everyone has, in few steps: learn the penguin, see it beside the base model.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use golden::fixtures;
use serde_json::Value;

const ONE_STEP_A_PHASE: [&str; 6] =
    ["--set", "phases.embedding.steps=1", "--set", "phases.cross_attention.steps=1", "--set", "phases.unet.steps=1"];

fn train(folder: &Path, more: &[&str]) -> Output {
    fs::write(folder.join("prompts.txt"), "a {} in the snow\n").unwrap();
    Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args(["train", "--device", "cpu", "--category", "bird", "--batch-size", "1"])
        .args(ONE_STEP_A_PHASE)
        .arg("--model")
        .arg(fixtures().join("miniature"))
        .arg("--concept")
        .arg(fixtures().join("subjects/penguin"))
        .arg("--out")
        .arg(folder.join("run"))
        .arg("--results")
        .arg(folder.join("prompts.txt"))
        .args(more)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_run_ends_with_results_to_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(folder.path(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = folder.path().join("run");
    // The miniature's own recipe: no rotation, and other learning rates than the paper's.
    let config = json(&run.join("config.json"));
    let recipe = json(&fixtures().join("miniature/attndreambooth.json"));
    assert_eq!(
        config["config"]["phases"]["unet"]["learning_rate"],
        recipe["methods"]["attndreambooth"]["phases"]["unet"]["learning_rate"]
    );
    assert_eq!(config["config"]["augmentation"]["rotation_p"], 0.0);
    assert_eq!(config["config"]["phases"]["unet"]["steps"], 1, "--set wins over the recipe");

    let comparison = json(&run.join("comparison/comparison.json"));
    assert_eq!(comparison["rows"][0]["prompt"], "a [V] bird in the snow");
    for image in comparison["rows"][0]["images"].as_array().unwrap() {
        let image = image::open(run.join("comparison").join(image.as_str().unwrap())).unwrap();
        assert_eq!((image.width(), image.height()), (128, 128));
    }
    let scores = json(&run.join("evaluation/prompts/scores.json"));
    assert!(scores["variants"].as_array().unwrap().iter().any(|variant| variant["name"] == "base"));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("a [V] bird in the snow"));

    // What evaluate draws when it is told no more is more of the same.
    let evaluated = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args(["evaluate", "--device", "cpu", "--images", "2", "--run"])
        .arg(&run)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(evaluated.status.success(), "{}", String::from_utf8_lossy(&evaluated.stderr));
    let more = json(&run.join("evaluation/prompts/scores.json"));
    let images = |scores: &Value| scores["variants"][0]["scores"]["prompts"][0]["images"].as_array().unwrap().len();
    assert_eq!((images(&scores), images(&more)), (1, 2));
}

#[test]
fn prompts_of_the_results_are_looked_for_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(folder.path(), &["--results", "ours25"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--results"));
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_preset_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(folder.path(), &["--preset", "paper", "--results", "none"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config = json(&folder.path().join("run/config.json"));
    assert_eq!(config["config"]["phases"]["unet"]["learning_rate"], 2e-6);
    assert_eq!(config["config"]["augmentation"]["rotation_p"], 0.75);
    assert!(!folder.path().join("run/report.html").exists());
}

#[test]
fn an_ablation_runs_each_variant_once_and_puts_them_in_a_table() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts.txt"), "a {} in the snow\n").unwrap();
    let out = folder.path().join("ablation");
    let ablate = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["ablate", "--variants", "full,without-stage1", "--seeds", "0,1", "--steps", "1", "--prompts"])
            .arg(folder.path().join("prompts.txt"))
            .arg("--out")
            .arg(&out)
            .arg("--subject")
            .arg(format!("{}=bird", fixtures().join("subjects/penguin").display()))
            .args(["--device", "cpu", "--", "--batch-size", "1", "--model"])
            .arg(fixtures().join("miniature"))
            .args(ONE_STEP_A_PHASE)
            .args(more)
            .env("OMP_NUM_THREADS", "1")
            .output()
            .unwrap()
    };
    let first = ablate(&[]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let table = fs::read_to_string(out.join("ablation.json")).unwrap();
    let rows = &json(&out.join("ablation.json"))["variants"];
    for (row, (variant, steps)) in [("full", 1), ("without-stage1", 0)].into_iter().enumerate() {
        assert_eq!(rows[row]["variant"], variant);
        assert_eq!(rows[row]["by_run"].as_array().unwrap().len(), 2);
        for seed in 0..2 {
            let run = out.join(format!("penguin/{variant}/seed-{seed}"));
            let config = json(&run.join("config.json"));
            assert_eq!(
                (&config["config"]["seed"], &config["config"]["phases"]["embedding"]["steps"]),
                (&seed.into(), &steps.into())
            );
            // What a seed's mean says is what its own evaluation says.
            let scores = json(&run.join("evaluation/ablation/scores.json"));
            let mean = scores["variants"][0]["scores"]["mean"]["clip_i"]["mean"].as_f64().unwrap();
            assert!((rows[row]["by_run"][seed][0].as_f64().unwrap() - mean).abs() < 1e-12);
        }
        let difference = |run: usize| {
            let mean = |row: usize| rows[row]["by_run"][run][0].as_f64().unwrap();
            mean(row) - mean(0)
        };
        let against_full = rows[row]["against_full"]["clip_i"]["mean"].as_f64();
        match against_full {
            Some(mean) => assert!((mean - (difference(0) + difference(1)) / 2.0).abs() < 1e-12),
            None => assert_eq!(variant, "full"),
        }
    }
    assert!(image::open(out.join("ablation.png")).is_ok());

    // What is there is not made again.
    let made = out.join("penguin/full/seed-0/learned_embeds.safetensors");
    let before = made.metadata().unwrap().modified().unwrap();
    assert!(ablate(&[]).status.success());
    assert_eq!(made.metadata().unwrap().modified().unwrap(), before);
    assert_eq!(fs::read_to_string(out.join("ablation.json")).unwrap(), table);

    // A run that ended right after its last step gets what it lacks.
    let run = out.join("penguin/full/seed-0");
    let curves = fs::read(run.join("curves.png")).unwrap();
    fs::create_dir(run.join("checkpoints")).unwrap();
    fs::remove_file(run.join("curves.png")).unwrap();
    assert!(ablate(&[]).status.success());
    assert!(fs::read(run.join("curves.png")).unwrap() == curves && !run.join("checkpoints").exists());

    // Nor is what other options have made taken for it.
    let other = ablate(&["--set", "phases.unet.learning_rate=1"]);
    assert_eq!(other.status.code(), Some(2));
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(message.contains("made with other options") && message.contains("learning_rate"), "{message}");

    let refused = |arguments: &[&str], words: &str| {
        let refused = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["ablate", "--subject", "photos/rex=dog", "--out", "x"])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(2));
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(message.contains(words), "{message}");
    };
    refused(&["--", "--seed=3"], "--seed is what ablate itself gives to train");
    // It would make all seeds the same one.
    refused(&["--", "--set", "seed=3"], "seed is what ablate itself gives to train");
    refused(&["--", "--set=category=cat"], "category is what ablate itself gives to train");
    refused(&["--seeds", "0,1,0", "--", "--batch-size=1"], "a seed is given twice");
    refused(&["--variants", "full,full", "--", "--batch-size=1"], "a variant is given twice");
}
