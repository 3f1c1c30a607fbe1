//! A run that ends before its time loses nothing that it had.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command};

use common::{assert_same_result, photos, stderr, train, wait_for_steps};

fn interrupt(child: &Child) {
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
}

fn checkpoints(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A quick first stage, then a step that takes long enough to press Ctrl-C twice.
const SLOW: [&str; 10] = [
    "--set",
    "embedding.steps=1",
    "--set",
    "cross_attention.steps=1",
    "--set",
    "cross_attention.batch_size=192",
    "--set",
    "unet.steps=0",
    "--validate-every",
    "0",
];

#[test]
fn ctrl_c_twice_stops_at_once_and_keeps_the_last_checkpoint() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let run = folder.join("run");
    let mut child = train(folder, "run", &SLOW).spawn().unwrap();
    while !run.join("checkpoints/embedding-00001").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    interrupt(&child);
    assert!(lines.any(|line| line.unwrap().contains("once more stops at once")));
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(checkpoints(&run), ["embedding-00001"]);
    assert_eq!(fs::read_to_string(run.join("log.jsonl")).unwrap().lines().count(), 1);

    let resumed = train(folder, "run", &[&SLOW[..], &["--resume"]].concat()).output().unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(train(folder, "whole", &SLOW).output().unwrap().status.success());
    assert_same_result(folder, "whole", "run");
}

#[test]
fn a_full_disk_loses_no_checkpoint() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    // A limit on the size of files stands for the disk: only the whole U-Net is larger.
    let command = train(folder, "run", &["--validate-every", "0"]);
    let limited = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; ulimit -f 400; exec "$0" "$@""#])
        .arg(command.get_program())
        .args(command.get_args())
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert_eq!(limited.status.code(), Some(2));
    let text = stderr(&limited);
    assert!(text.contains("cannot write the checkpoint") && text.contains("File too large"), "{text}");
    assert_eq!(checkpoints(&folder.join("run")), ["cross_attention-00006"]);

    let resumed = train(folder, "run", &["--validate-every", "0", "--resume"]).output().unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(train(folder, "whole", &["--validate-every", "0"]).output().unwrap().status.success());
    assert_same_result(folder, "whole", "run");
}

#[test]
fn a_folder_that_is_removed_comes_back_with_the_next_checkpoint() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let run = folder.join("run");
    let long = ["--set", "embedding.steps=60", "--checkpoint-every", "10", "--validate-every", "0"];
    let mut child = train(folder, "run", &long).spawn().unwrap();
    wait_for_steps(&mut child, &run.join("log.jsonl"), 12);
    while run.exists() {
        let _ = fs::remove_dir_all(&run);
    }
    while !run.join("config.json").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = train(folder, "run", &[&long[..], &["--resume"]].concat()).output().unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(train(folder, "whole", &long).output().unwrap().status.success());
    assert_same_result(folder, "whole", "run");
}

#[test]
fn want_of_memory_names_the_flags_that_help() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    // The program alone takes less than 2 GB of addresses; one of the VAE's activations here takes 1 GB.
    let command = train(folder, "run", &["--resolution", "4096", "--batch-size", "1"]);
    let limited = Command::new("sh")
        .args(["-c", r#"ulimit -v 2500000; exec "$0" "$@""#])
        .arg(command.get_program())
        .args(command.get_args())
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    let text = stderr(&limited);
    assert_eq!(limited.status.code(), Some(2), "{text}");
    for flag in ["--gradient-checkpointing", "--dtype bf16", "--batch-size", "--gradient-accumulation"] {
        assert!(text.contains(flag), "{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}
