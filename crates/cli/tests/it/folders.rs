//! No command replaces, or adds to, what this program has not made.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use golden::{copy_folder, fixtures};

use crate::common::{self, contents, photos, refuses, stderr, succeed, text, train, trained};

#[test]
fn a_run_takes_no_folder_with_something_else() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    copy_folder(&fixtures().join("tiny-sd21"), &folder.join("model"));
    fs::create_dir(folder.join("own")).unwrap();
    fs::write(folder.join("own/notes.txt"), "mine").unwrap();
    symlink(folder.join("model"), folder.join("link")).unwrap();
    let before = contents(folder);
    let model = text(&folder.join("model"));
    for out in ["model", "link", "photos/../model", "model/unet", "photos", "own", "own/notes.txt"] {
        for more in [&["--model", &model][..], &["--model", &model, "--prior-preservation"]] {
            let output = train(folder, out, more).output().unwrap();
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains("is not empty") || text.contains("is not a folder"), "{out}: {text}");
        }
        let output = train(folder, out, &["--resume"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
    let prior = train(folder, "run", &["--prior-folder", &text(&folder.join("model/../photos"))]).output().unwrap();
    assert!(stderr(&prior).contains("is the photos' own: give another --prior-folder"), "{}", stderr(&prior));
    assert!(contents(folder) == before);
}

#[test]
fn results_go_into_folders_of_their_own() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let run = trained(folder, "run", &[]);
    let prompts = text(&folder.join("prompts.txt"));
    fs::write(&prompts, "a {} on the beach\n").unwrap();
    let [other, clip] = [text(&folder.join("other")), text(&fixtures().join("tiny-clip"))];
    copy_folder(Path::new(&run), Path::new(&other));
    let commands: [&[&str]; 4] = [
        &["attend", "--run", &run, "--prompt", "a [V] ball", "--steps", "1", "--device", "cpu"],
        &["inspect", "--run", &run, "--images", "1", "--steps", "1", "--device", "cpu"],
        &[
            "evaluate",
            "--run",
            &run,
            "--images",
            "1",
            "--steps",
            "1",
            "--device",
            "cpu",
            "--clip",
            &clip,
            "--prompts",
            &prompts,
        ],
        &["compare", &run, &other],
    ];
    let before = contents(folder);
    let [photos, taken] = [text(&folder.join("photos")), text(&folder.join("taken"))];
    for command in commands {
        for foreign in [&photos, &run] {
            refuses(&[command, &["--out", foreign]].concat(), "is not empty");
        }
    }
    refuses(&["pretrain", "--drawings", "none", "--out", &photos], "is not empty");
    refuses(&["pretrain", "--drawings", "none", "--out", &common::model()], "is not empty");
    assert!(contents(folder) == before);
    for command in commands {
        for _ in 0..2 {
            succeed(&[command, &["--out", &taken]].concat());
        }
        let other = if command[0] == "attend" { commands[1] } else { commands[0] };
        refuses(&[other, &["--out", &taken]].concat(), "choose another --out");
        fs::remove_dir_all(&taken).unwrap();
    }
}

#[test]
fn what_others_put_into_a_run_is_left_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let run = folder.join("run");
    let short = ["--set", "phases.unet.steps=2", "--validate-every", "0", "--preset", "fast", "--seed", "3"];
    let mut child = train(folder, "run", &[&short[..], &["--set", "phases.unet.steps=4000"]].concat()).spawn().unwrap();
    common::wait_for_steps(&mut child, &run.join("log.jsonl"), 14);
    child.kill().unwrap();
    child.wait().unwrap();
    let (state, foreign) = (run.join("config.json"), run.join("checkpoints/mine"));
    // As if fewer had been asked for.
    let config = fs::read_to_string(&state).unwrap().replace("\"steps\": 4000", "\"steps\": 16");
    fs::write(&state, config).unwrap();
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("state.json"), "{}").unwrap();

    // A lock that leads elsewhere.
    fs::remove_file(run.join(".lock")).unwrap();
    symlink(folder.join("photos/notes.txt"), run.join(".lock")).unwrap();
    let out = text(&run);
    let resume = ["train", "--device", "cpu", "--resume", "--out", &out];
    refuses(&resume, ".lock is not a lock of this program");
    assert_eq!(fs::read(folder.join("photos/notes.txt")).unwrap(), b"not a photo");
    fs::remove_file(run.join(".lock")).unwrap();

    // Another preset is told by its values; the same one, with all that was given beside it, is fine.
    refuses(&[&resume[..], &["--preset", "paper"]].concat(), "config.phases.unet.learning_rate was 1e-5, is 2e-6");
    refuses(&[&resume[..], &["--seed", "4"]].concat(), "config.seed was 3, is 4");
    let again =
        train(folder, "run", &[&short[..], &["--set", "phases.unet.steps=16", "--resume"]].concat()).output().unwrap();
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(
        stderr(&again).contains("mine is not a checkpoint of this program, and is left alone"),
        "{}",
        stderr(&again)
    );
    assert!(foreign.join("state.json").exists());
}

#[test]
fn a_run_that_does_not_fit_its_disk_is_not_begun() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    // Three million grids of a thousand images of 49 kB.
    let prompts = format!("validation.prompts={}", serde_json::json!(vec!["a [V]"; 1000]));
    let steps = ["embedding", "cross_attention", "unet"].map(|stage| format!("phases.{stage}.steps=1000000"));
    let many = ["--validate-every", "1", "--set", &prompts, "--set", &steps[0], "--set", &steps[1], "--set", &steps[2]];
    let output = train(folder, "run", &many).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("GB more on its disk") && text.contains("GB are free there"), "{text}");
    assert!(!folder.join("run").exists());
}

#[test]
fn want_of_memory_for_the_weights_is_one_sentence() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let model = folder.join("model");
    copy_folder(&fixtures().join("tiny-sd21"), &model);
    // A text encoder with embeddings of 6 GB, which take no room on the disk.
    let encoder = model.join("text_encoder");
    let mut config = common::json(&encoder.join("config.json"));
    let (rows, width) = (4_000_000u64, 376u64);
    config["vocab_size"] = rows.into();
    config["hidden_size"] = width.into();
    fs::write(encoder.join("config.json"), config.to_string()).unwrap();
    let header = serde_json::json!({ "text_model.embeddings.token_embedding.weight":
        { "dtype": "F32", "shape": [rows, width], "data_offsets": [0, rows * width * 4] } })
    .to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    fs::write(encoder.join("model.safetensors"), &bytes).unwrap();
    let file = fs::File::options().write(true).open(encoder.join("model.safetensors")).unwrap();
    file.set_len(bytes.len() as u64 + rows * width * 4).unwrap();

    let (model, out) = (text(&model), text(&folder.join("out")));
    let limited = Command::new("sh")
        .args(["-c", r#"ulimit -v 10000000; exec "$0" "$@""#, env!("CARGO_BIN_EXE_attndreambooth")])
        .args(["generate", "--device", "cpu", "--model", &model, "--prompt", "a ball", "--out", &out])
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    let said = stderr(&limited);
    assert_eq!(limited.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("error: there is not enough memory: try --dtype bf16") && said.contains("text_encoder"),
        "{said}"
    );
}
