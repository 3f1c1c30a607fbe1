//! `--profile` as a user asks for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use golden::fixtures;
use serde_json::Value;

use crate::common::{assert_same_result, photos, stderr, train, wait_for_steps};

/// A trace's spans, and the names of its threads.
fn trace(path: &Path) -> (Vec<Value>, Vec<String>) {
    let trace: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap().clone();
    let (spans, metadata): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event["ph"] == "X");
    assert!(metadata.iter().all(|event| event["ph"] == "M" && event["name"] == "thread_name"));
    let threads = metadata.iter().map(|event| event["args"]["name"].as_str().unwrap().to_owned()).collect();
    (spans, threads)
}

fn assert_has(spans: &[Value], names: &[&str]) {
    let found: BTreeSet<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    for name in names {
        assert!(found.contains(name), "there is no {name}, but {found:?}");
    }
}

/// The share of the time that no span of the main thread covers, in per cent.
fn uncovered(table: &str) -> f64 {
    let line = table.lines().find(|line| line.starts_with("(in no span)")).unwrap_or_else(|| panic!("{table}"));
    line.trim_end_matches(" %").split_whitespace().next_back().unwrap().parse().unwrap()
}

const UNET: [&str; 8] = [
    "unet",
    "unet/text",
    "unet/conv_in",
    "unet/time_embedding",
    "unet/down_blocks.0",
    "unet/mid_block",
    "unet/up_blocks.1",
    "unet/conv_out",
];

#[test]
fn a_profiled_run_says_where_its_time_went_and_learns_the_same() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let more = ["--gradient-checkpointing", "--set", "ema.decay=0.9", "--set", "max_grad_norm=1"];
    let plain = train(folder, "plain", &more).output().unwrap();
    assert!(plain.status.success() && !folder.join("plain/profile.json").exists(), "{}", stderr(&plain));
    let profiled = train(folder, "profiled", &[&more[..], &["--profile"]].concat()).output().unwrap();
    assert!(profiled.status.success(), "{}", stderr(&profiled));
    assert_same_result(folder, "plain", "profiled");

    let (spans, threads) = trace(&folder.join("profiled/profile.json"));
    assert_has(&spans, &UNET);
    let trainer = "load start_phase step batch loss backward clip_gradients optimizer running_average \
                   checkpoint validation log outputs samples";
    let names: Vec<String> = trainer.split_whitespace().map(|part| format!("train/{part}")).collect();
    assert_has(&spans, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let others = ["text_encoder", "unet/observer", "unet/recomputed", "sampling/step", "sampling/scheduler"];
    assert_has(&spans, &others);
    assert_has(&spans, &["batches/batch", "batches/render", "vae/encode", "vae/decode"]);
    // On a CPU nothing is done beside the step.
    assert_eq!(threads, ["main"]);
    let steps = spans.iter().filter(|span| span["name"] == "train/step");
    assert_eq!(steps.count(), 18);

    let text = stderr(&profiled);
    assert!(text.contains("\n  train/backward ") && text.contains("\n    unet/recomputed "), "{text}");
    assert!(uncovered(&text) < 15.0, "{text}");
}

#[test]
fn a_run_that_is_stopped_says_where_its_time_went_too() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let mut child = train(folder, "run", &["--set", "phases.unet.steps=2000", "--profile"]).spawn().unwrap();
    wait_for_steps(&mut child, &folder.join("run/log.jsonl"), 8);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let stopped = child.wait_with_output().unwrap();
    let text = stderr(&stopped);
    assert_eq!(stopped.status.code(), Some(75), "{text}");
    assert!(text.contains("\ntrain/step ") && text.contains("Resume with: train --out"), "{text}");
    assert_has(&trace(&folder.join("run/profile.json")).0, &["train/step"]);
}

#[test]
fn profiled_images_are_the_same() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let generate = |out: &str, more: &[&str]| -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["generate", "--device", "cpu", "--prompt", "a cat", "--images", "3", "--batch-size", "2"])
            .args(["--steps", "4", "--scheduler", "ddim", "--model"])
            .arg(fixtures().join("tiny-sd21"))
            .arg("--out")
            .arg(folder.join(out))
            .args(more)
            .env("OMP_NUM_THREADS", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output
    };
    generate("plain", &[]);
    let profiled = generate("profiled", &["--profile"]);
    assert!(!folder.join("plain/profile.json").exists());
    for file in ["0000-seed0.png", "0002-seed2.png", "grid-0000.png"] {
        let [a, b] = ["plain", "profiled"].map(|out| fs::read(folder.join(out).join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
    let (spans, threads) = trace(&folder.join("profiled/profile.json"));
    assert_has(&spans, &UNET);
    assert_has(&spans, &["generate/load", "generate/save", "text_encoder", "sampling/scheduler", "vae/decode"]);
    let steps = spans.iter().filter(|span| span["name"] == "sampling/step");
    assert_eq!(steps.count(), 2 * 4);
    assert_eq!(threads, ["main"]);
    let text = stderr(&profiled);
    assert!(uncovered(&text) < 15.0, "{text}");
}
