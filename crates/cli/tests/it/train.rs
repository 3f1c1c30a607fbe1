//! `train` as a user runs it, interrupted in every way.

use std::fs;
use std::path::Path;
use std::process::Command;

use golden::fixtures;

use crate::common::{CHANGED, assert_same_result, photos, stderr, train, wait_for_steps};

/// The log without what the clock decides.
fn losses(run: &Path) -> Vec<(u64, String)> {
    let text = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|l| (l["step"].as_u64().unwrap(), format!("{} {}", l["diffusion_loss"], l["attention_loss"]))).collect()
}

#[test]
fn killed_at_any_moment_and_resumed_it_ends_in_the_same_bytes() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let whole = train(folder, "whole", &[]).output().unwrap();
    assert!(whole.status.success(), "{}", stderr(&whole));
    for note in ["notes.txt", "the category \"cat\" is 2 tokens for this model; [V] is compared with the mean"] {
        assert!(stderr(&whole).contains(note), "{}", stderr(&whole));
    }
    let run = folder.join("whole");
    for file in CHANGED.iter().chain(&[
        "config.json",
        "log.jsonl",
        "contact_sheet.png",
        "curves.png",
        "samples.png",
        "unet/config.json",
        "validation/1-embedding-00004.png",
    ]) {
        assert!(run.join(file).exists(), "{file} is missing");
    }
    assert_eq!(losses(&run).len(), 18);

    // It needs no checkpoint any more. Gone on with, it learns nothing more, but draws again what is missing.
    assert!(!run.join("checkpoints").exists());
    let made = |file: &str| fs::read(run.join(file)).unwrap();
    let files = ["samples.png", "curves.png", "log.jsonl", "unet/diffusion_pytorch_model.safetensors"];
    let before = files.map(made);
    fs::remove_file(run.join("samples.png")).unwrap();
    let again = train(folder, "whole", &["--resume"]).output().unwrap();
    assert!(again.status.success() && !stderr(&again).contains("phase "), "{}", stderr(&again));
    assert!(files.map(made) == before);

    let generate = |prompt: &str, from: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["generate", "--device", "cpu", "--steps", "2", "--prompt", prompt, "--out"])
            .arg(folder.join("images"))
            .args(from)
            .output()
            .unwrap()
    };
    let (run_path, model) = (run.display().to_string(), fixtures().join("tiny-sd21").display().to_string());
    let drawn = generate("a [V] cat on the moon", &["--run", &run_path]);
    assert!(drawn.status.success(), "{}", stderr(&drawn));
    let refused = generate("a [V] cat on the moon", &["--model", &model]);
    assert!(stderr(&refused).contains("has learned no subject"), "{}", stderr(&refused));

    for (format, out) in [("diffusers", "exported"), ("single-file", "exported.safetensors")] {
        let export = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["export", "--run", &run_path, "--format", format, "--out"])
            .arg(folder.join(out))
            .output()
            .unwrap();
        assert!(export.status.success(), "{}", stderr(&export));
        assert!(folder.join(out).exists());
    }
    // The exported folder knows the token by its name and makes the run's image.
    let exported = folder.join("exported").display().to_string();
    let image = |file: &str| fs::read(folder.join("images").join(file)).unwrap();
    let pixels = |bytes: Vec<u8>| image::load_from_memory(&bytes).unwrap().into_rgb8();
    let ours = pixels(image("0000-seed0.png"));
    assert!(generate("a <new> cat on the moon", &["--model", &exported]).status.success());
    assert!(ours.as_raw().iter().zip(pixels(image("0001-seed0.png")).as_raw()).all(|(a, b)| a.abs_diff(*b) <= 1));

    // Killed by SIGKILL again and again, at steps that are not those of checkpoints.
    for moments in [&[1, 5, 9][..], &[7, 13], &[17]] {
        let name = format!("killed-{}", moments[0]);
        for (i, moment) in moments.iter().enumerate() {
            let mut child = train(folder, &name, if i == 0 { &[] } else { &["--resume"] }).spawn().unwrap();
            wait_for_steps(&mut child, &folder.join(&name).join("log.jsonl"), *moment);
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // The run's own configuration is enough to go on.
        let resumed = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["train", "--device", "cpu", "--results", "none", "--resume", "--out"])
            .arg(folder.join(&name))
            .env("OMP_NUM_THREADS", "1")
            .output()
            .unwrap();
        assert!(resumed.status.success(), "{}", stderr(&resumed));
        assert_same_result(folder, "whole", &name);
        assert_eq!(losses(&folder.join(&name)), losses(&run));
    }
}

#[test]
fn an_interrupt_writes_a_checkpoint_and_says_how_to_go_on() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let long = ["--set", "phases.unet.steps=2000", "--checkpoint-every", "1000"];
    let mut child = train(folder, "run", &long).spawn().unwrap();
    wait_for_steps(&mut child, &folder.join("run/log.jsonl"), 15);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let stopped = child.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(75));
    assert!(stderr(&stopped).contains("Resume with: train --out"), "{}", stderr(&stopped));
    assert!(fs::read_dir(folder.join("run/checkpoints")).unwrap().count() == 1);

    // It has learned nothing yet that could be drawn.
    let unfinished = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args(["generate", "--device", "cpu", "--prompt", "a [V] cat", "--run"])
        .arg(folder.join("run"))
        .output()
        .unwrap();
    assert_eq!(unfinished.status.code(), Some(2));
    assert!(stderr(&unfinished).contains("is not finished"), "{}", stderr(&unfinished));

    // Another run may not take the folder, and a changed configuration is named.
    let says = |more: &[&str], words: &[&str]| {
        let output = train(folder, "run", more).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(words.iter().all(|word| text.contains(word)) && !text.contains("panicked"), "{text}");
    };
    says(&[], &["--resume"]);
    says(
        &["--resume", "--set", "phases.unet.steps=2000", "--set", "phases.unet.learning_rate=1"],
        &["phases.unet.learning_rate", "2e-6"],
    );
}

#[test]
fn bad_input_is_one_sentence() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    fs::create_dir(folder.join("empty")).unwrap();
    fs::create_dir(folder.join("corrupt")).unwrap();
    fs::write(folder.join("corrupt/a.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let (empty, corrupt) = (path("empty"), path("corrupt"));
    let says = |more: &[&str], words: &str| {
        let output = train(folder, "run", more).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words) && !text.contains("panicked") && !text.contains("frame #"), "{text}");
        assert!(!folder.join("run/log.jsonl").exists());
    };
    says(&["--concept", &empty], "empty");
    says(&["--concept", &corrupt], "a.png");
    says(&["--concept", "/no/photos"], "/no/photos");
    says(&["--category", ""], "category is empty");
    says(&["--category", "<|endoftext|>"], "is not in this model's vocabulary");
    says(&["--set", "placeholder=cat"], "cat");
    says(&["--set", "prompt=a photo"], "[V]");
    says(&["--set", "phases.unet.step=3"], "unknown field `step`");
    says(&["--set", "phases.unet.steps"], "has no =");
    says(&["--model", "/no/model"], "/no/model");
    says(&["--set", "phases.unet.batch_size=0"], "batch_size is 0");
    // What matters only at the end is found out at the beginning.
    says(&["--resolution", "100"], "--resolution): height 100 is not a positive multiple of 8");
    says(&["--set", "validation.steps=0"], "validation: ");
    says(&["--set", "ema.decay=1"], "decay is 1");
    says(&["--set", "ema.decy=0.9"], "unknown field `decy`");
}

#[test]
fn a_single_photo_may_stand_for_a_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let run = |name: &str| {
        let photo = folder.join("photos").join(name).display().to_string();
        let short =
            ["--set", "phases.cross_attention.steps=0", "--set", "phases.unet.steps=0", "--validate-every", "0"];
        let output = train(folder, name, &[&short[..], &["--concept", &photo]].concat()).output().unwrap();
        (photo, output)
    };
    let (photo, output) = run("1.png");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(folder.join("1.png/config.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["config"]["concept"], photo);
    let files: Vec<_> = record["photos"].as_array().unwrap().iter().map(|photo| &photo["file"]).collect();
    assert_eq!(files, ["1.png"]);

    let (notes, output) = run("notes.txt");
    let expected = format!("error: the photo {notes} is not a JPEG, PNG, WebP, BMP, GIF or TIFF image\n");
    assert!(stderr(&output).ends_with(&expected) && !folder.join("notes.txt").exists(), "{}", stderr(&output));
}

#[test]
fn a_folder_in_use_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let mut child = train(folder, "run", &["--set", "phases.unet.steps=5000"]).spawn().unwrap();
    wait_for_steps(&mut child, &folder.join("run/log.jsonl"), 2);
    let second = train(folder, "run", &["--set", "phases.unet.steps=5000", "--resume"]).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(stderr(&second).contains("in use"), "{}", stderr(&second));
}
