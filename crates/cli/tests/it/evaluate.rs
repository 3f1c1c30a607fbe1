//! `evaluate` as a user runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use golden::{copy_folder, fixtures};
use serde_json::Value;

use crate::common::{json, program, stderr, succeed};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A finished run of two steps a phase.
fn train(folder: &Path) -> PathBuf {
    train_with(folder, &[])
}

fn train_with(folder: &Path, more: &[&str]) -> PathBuf {
    let run = folder.join("run");
    let [model, photos] = ["tiny-sd21", "evaluation/photos"].map(|name| text(&fixtures().join(name)));
    let out = text(&run);
    let mut arguments =
        vec!["train", "--device", "cpu", "--results", "none", "--model", &model, "--concept", &photos, "--out", &out];
    arguments.extend(["--category", "cat", "--batch-size", "2", "--resolution", "64"]);
    for set in
        ["phases.embedding.steps=2", "phases.cross_attention.steps=2", "phases.unet.steps=2", "validation.steps=1"]
    {
        arguments.extend(["--set", set]);
    }
    succeed(&[&arguments, more].concat());
    run
}

fn evaluate(run: &Path, more: &[&str]) -> Output {
    let (run, clip) = (text(run), text(&fixtures().join("tiny-clip")));
    let mut arguments = vec!["evaluate", "--device", "cpu", "--run", &run, "--steps", "1"];
    for (name, value) in [("--clip", clip.as_str()), ("--height", "64"), ("--width", "64")] {
        if !more.contains(&name) {
            arguments.extend([name, value]);
        }
    }
    program(&[&arguments, more].concat())
}

fn says(run: &Path, arguments: &[&str], words: &[&str]) {
    let result = evaluate(run, arguments);
    let stderr = stderr(&result);
    assert_eq!(result.status.code(), Some(2), "{stderr}");
    let error = stderr.lines().last().unwrap();
    assert!(error.starts_with("error: ") && words.iter().all(|word| error.contains(word)), "{words:?}: {stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("frame #"), "{stderr}");
}

#[test]
fn a_run_is_drawn_and_scored_once() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let run = train(folder);
    let prompts = folder.join("mine.txt");
    fs::write(&prompts, "a {} on the beach\na red {}\n").unwrap();
    let prompts = text(&prompts);
    let arguments = ["--prompts", &prompts, "--images", "2", "--base"];
    let result = evaluate(&run, &arguments);
    assert!(result.status.success(), "{}", stderr(&result));
    let table = String::from_utf8(result.stdout).unwrap();
    assert!(table.starts_with("mine: 2 prompts x 2 images, 3 photos; scored by tiny-clip ("), "{table}");

    let out = run.join("evaluation/mine");
    let record = json(&out.join("scores.json"));
    let clip_i = &record["variants"][0]["scores"]["mean"]["clip_i"];
    let [mean, low, high] = ["mean", "low", "high"].map(|key| clip_i[key].as_f64().unwrap());
    let shown = format!(
        "\nsubject  {}{mean:.4} [{low:.4}, {high:.4}]",
        " ".repeat("  a {} on the beach".len() - "subject".len())
    );
    for part in ["CLIP-T without \"cat\"", &shown, "\nbase, by kind", "\n  a {} on the beach"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    assert_eq!(record["versions"]["libtorch"], libtorch::LIBTORCH_VERSION);
    let [subject, base] = [0, 1].map(|i| &record["variants"][i]);
    assert_eq!((&subject["name"], &base["name"]), (&"subject".into(), &"base".into()));
    for i in 0..2 {
        let seed = |variant: &Value| variant["scores"]["prompts"][i]["images"][1]["seed"].clone();
        assert_eq!(seed(subject), seed(base));
    }
    let parameters = |name: &str| images::png_texts(&out.join(name)).unwrap()[0].1.clone();
    let (learned, plain) = (parameters("subject/001-01.png"), parameters("base/001-01.png"));
    assert!(learned.starts_with("a red [V] cat\n") && learned.ends_with("Model: tiny-sd21 with [V] cat"), "{learned}");
    assert!(plain.starts_with("a red cat\n") && plain.ends_with("Model: tiny-sd21"), "{plain}");

    // Once more: nothing is drawn, the scores are the same; also where the run has been moved to another place.
    let moved = folder.join("moved");
    fs::rename(&run, &moved).unwrap();
    let again = evaluate(&moved, &arguments);
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(!stderr(&again).contains("generating"), "{}", stderr(&again));
    let reread = json(&moved.join("evaluation/mine/scores.json"));
    assert_eq!(reread["variants"], record["variants"]);

    // An image is incomplete: it alone is regenerated.
    let half = moved.join("evaluation/mine/base/000-01.png");
    let whole = fs::read(&half).unwrap();
    fs::write(&half, &whole[..100]).unwrap();
    let mended = evaluate(&moved, &arguments);
    assert!(stderr(&mended).contains("000-01.png is incomplete; regenerating"), "{}", stderr(&mended));
    assert!(stderr(&mended).contains("generating base, steps 1/1"), "{}", stderr(&mended));
    assert!(fs::read(&half).unwrap().len() > 100);

    // Somebody else draws there.
    fs::remove_file(&half).unwrap();
    let lock = fs::File::create(moved.join("evaluation/mine/base/.lock")).unwrap();
    lock.lock().unwrap();
    says(
        &moved,
        &arguments,
        &["evaluation/mine/base is in use by another process; wait for it, or choose another --out"],
    );
    drop(lock);
    assert!(!half.exists() && evaluate(&moved, &arguments).status.success() && half.exists());

    // Masks of photos and images, all white: the same score.
    let masks = folder.join("masks");
    for (name, from) in
        [("photos", fixtures().join("evaluation/photos")), ("subject", moved.join("evaluation/mine/subject"))]
    {
        fs::create_dir_all(masks.join(name)).unwrap();
        for path in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "png") {
                let (width, height) = image::image_dimensions(&path).unwrap();
                let white = image::GrayImage::from_pixel(width, height, image::Luma([255]));
                white.save(masks.join(name).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    let masks = text(&masks);
    let result = evaluate(&moved, &["--prompts", &prompts, "--images", "2", "--masks", &masks]);
    assert!(result.status.success(), "{}", stderr(&result));
    let record = json(&moved.join("evaluation/mine/scores.json"));
    let mean = &record["variants"][0]["scores"]["mean"];
    assert_eq!(mean["clip_i_masked"], mean["clip_i"]);
    says(&moved, &[&arguments[..], &["--masks", &masks]].concat(), &["base/000-00.png has no mask"]);

    // Other settings do not mix with these.
    says(&moved, &[&arguments[..], &["--guidance-scale", "3"]].concat(), &["guidance_scale was 7.5, is 3", "--out"]);
}

#[test]
fn what_is_wrong_is_said_in_a_sentence() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let run = train(folder);
    let file = |name: &str, content: &str| {
        fs::write(folder.join(name), content).unwrap();
        text(&folder.join(name))
    };
    says(&folder.join("no"), &[], &["no is not the folder of a training run"]);
    says(&run, &["--prompts", "ours"], &["no prompt set and no file called \"ours\"", "ours24"]);
    let prompts = file("p.txt", "a cat");
    says(&run, &["--prompts", &prompts], &["prompt 1, \"a cat\", does not say where the subject goes"]);
    says(&run, &["--clip", "/no/clip"], &["no CLIP folder /no/clip"]);
    let text_only = text(&fixtures().join("tiny-sd21/text_encoder"));
    says(&run, &["--clip", &text_only], &["text_encoder", "clip_text_model", "clip"]);
    let refused = evaluate(&run, &["--scheduler", "heun"]);
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error: ") && said.contains("'heun'") && said.contains("dpm-solver++"), "{said}");
    says(&run, &["--height", "33", "--images", "1", "--prompts", "neti"], &["height 33"]);
    says(&run, &["--concept", "/no/photos"], &["--concept", "/no/photos"]);
    fs::create_dir(folder.join("empty")).unwrap();
    says(&run, &["--concept", &text(&folder.join("empty"))], &["holds no photos"]);
    assert!(!run.join("evaluation").exists());

    let config = fs::read_to_string(run.join("config.json")).unwrap();
    let version = format!("\"attndreambooth\": \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(config.contains(&version));
    let other = config.replace(&version, "\"attndreambooth\": \"9.0.0\"").replace("\"vectors\"", "\"tokens\"");
    fs::write(run.join("config.json"), other).unwrap();
    says(&run, &[], &["written by version 9.0.0", "train again"]);
    fs::write(run.join("config.json"), config).unwrap();
    fs::remove_file(run.join("learned_embeds.safetensors")).unwrap();
    says(&run, &[], &["is not finished", "--resume"]);
}

#[test]
fn the_clip_by_which_a_run_has_stopped_does_not_score_it() {
    let temporary = tempfile::tempdir().unwrap();
    let clip = text(&fixtures().join("tiny-clip"));
    let stopping = ["--stop", "auto", "--stop-clip", &clip, "--stop-floor", "0", "--set", "stop.clip.steps=1"];
    let run = train_with(temporary.path(), &stopping);
    let config: Value = json(&run.join("config.json"));
    assert_eq!(config["config"]["stop"]["clip"]["floor"], 0.0);
    // Wherever a copy of it is.
    let copied = temporary.path().join("other");
    copy_folder(Path::new(&clip), &copied);
    says(&run, &["--clip", &text(&copied)], &["is the one by which the run was stopped (--stop-clip)", "--clip"]);
}
