//! A run that ends before its time loses nothing that it had.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command};

use crate::common::{self, assert_same_result, photos, stderr, train, wait_for_steps};

fn send(child: &Child, signal: &str) {
    Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
}

/// Waits for something that the child brings about, which must not end before.
fn wait_for(child: &mut Child, happened: impl Fn() -> bool) {
    while !happened() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended too soon");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn checkpoints(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A quick first phase, then a step that takes long enough to press Ctrl-C twice.
const SLOW: [&str; 10] = [
    "--set",
    "phases.embedding.steps=1",
    "--set",
    "phases.cross_attention.steps=1",
    "--set",
    "phases.cross_attention.batch_size=192",
    "--set",
    "phases.unet.steps=0",
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
    wait_for(&mut child, || run.join("checkpoints/embedding-00001").exists());
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    send(&child, "INT");
    assert!(lines.any(|line| line.unwrap().contains("a second signal stops at once")));
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(checkpoints(&run), ["embedding-00001"]);
    assert_eq!(fs::read_to_string(run.join("log.jsonl")).unwrap().lines().count(), 1);

    let resumed = train(folder, "run", &[&SLOW[..], &["--resume"]].concat()).output().unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(train(folder, "whole", &SLOW).output().unwrap().status.success());
    assert_same_result(folder, "whole", "run");
}

/// Sixty quick steps, of which an interruption finds some.
const LONG: [&str; 6] = ["--set", "phases.embedding.steps=60", "--checkpoint-every", "100", "--validate-every", "0"];

#[test]
fn each_signal_saves_a_checkpoint_and_asks_to_be_called_again() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let run = folder.join("run");
    for (steps, signal) in [(5, "TERM"), (15, "HUP"), (25, "INT")] {
        let resume: &[&str] = if steps == 5 { &[] } else { &["--resume"] };
        let mut child = train(folder, "run", &[&LONG[..], resume].concat()).spawn().unwrap();
        wait_for_steps(&mut child, &run.join("log.jsonl"), steps);
        send(&child, signal);
        let ended = child.wait_with_output().unwrap();
        let text = stderr(&ended);
        assert_eq!(ended.status.code(), Some(75), "{signal}: {text}");
        assert!(text.contains("interrupted; ") && text.contains("--resume") && !text.contains("error"), "{text}");
        assert_eq!(checkpoints(&run).len(), 1);
    }
    let resumed = train(folder, "run", &[&LONG[..], &["--resume"]].concat()).output().unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(train(folder, "whole", &LONG).output().unwrap().status.success());
    assert_same_result(folder, "whole", "run");
}

/// Starts a command by a shell that has prepared something for it.
fn prepared(command: &Command, preparation: &str) -> Command {
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &format!(r#"{preparation} "$0" "$@""#)])
        .arg(command.get_program())
        .args(command.get_args())
        .env("OMP_NUM_THREADS", "1");
    shell
}

#[test]
fn a_lost_terminal_stops_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let whole = train(folder, "whole", &[]).output().unwrap();
    assert!(whole.status.success(), "{}", stderr(&whole));
    // As nohup: a hang-up does not count.
    let mut child = prepared(&train(folder, "nohup", &LONG), r#"trap "" HUP; exec"#).spawn().unwrap();
    wait_for_steps(&mut child, &folder.join("nohup/log.jsonl"), 5);
    send(&child, "HUP");
    assert!(child.wait().unwrap().success());
    for (run, shell) in [
        // A reader that takes one line and goes.
        ("head", r#"set -o pipefail; run() { "$@" 2>&1 | head -1; }; run"#),
        ("full", r#"run() { "$@" >/dev/full 2>&1; }; run"#),
        ("closed", r#"run() { "$@" >&- 2>&-; }; run"#),
    ] {
        let output = prepared(&train(folder, run, &[]), shell).output().unwrap();
        assert!(output.status.success(), "{run}: {:?} {}", output.status, stderr(&output));
        assert_same_result(folder, "whole", run);
    }
    let help = prepared(
        Command::new(env!("CARGO_BIN_EXE_attndreambooth")).args(["train", "--help"]),
        "run() { \"$@\" >/dev/full; }; run",
    );
    assert!({ help }.output().unwrap().status.success());
}

#[test]
fn generating_stops_at_once_and_leaves_whole_images() {
    let temporary = tempfile::tempdir().unwrap();
    let out = temporary.path().join("out");
    for (signals, code) in [(1, 75), (2, 143)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
            .args(["generate", "--device", "cpu", "--prompt", "a cat", "--images", "500", "--steps", "4"])
            .args(["--batch-size", "1", "--model", &common::model(), "--out"])
            .arg(&out)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let images = || {
            fs::read_dir(&out).map_or(0, |entries| {
                entries.filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|e| e == "png")).count()
            })
        };
        let before = images();
        wait_for(&mut child, || images() > before + 1);
        (0..signals).for_each(|_| send(&child, "TERM"));
        // The second of two may find the process gone.
        let ended = child.wait().unwrap().code();
        assert!(ended == Some(75) || ended == Some(code), "{ended:?}");
        for entry in fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|extension| extension == "png") {
                image::open(&entry).unwrap();
            }
        }
    }
}

#[test]
fn an_interrupted_ablation_goes_on_with_its_run() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let ablate = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
        command
            .args(["ablate", "--variants", "full", "--seeds", "0", "--device", "cpu", "--out"])
            .arg(folder.join("ablation"))
            .args(["--subject", &format!("{}=cat", folder.join("photos").display()), "--", "--model", &common::model()])
            .args(["--preset", "fast", "--batch-size", "1", "--resolution", "64"])
            .env("OMP_NUM_THREADS", "1")
            .stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let log = folder.join("ablation/photos/full/seed-0/log.jsonl");
    for steps in [3, 9] {
        let mut child = ablate();
        wait_for_steps(&mut child, &log, steps);
        send(&child, "TERM");
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(75), "{}", stderr(&ended));
    }
    // The second call has gone on where the first one was.
    let steps = fs::read_to_string(&log).unwrap().lines().count();
    let first = fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains("\"step\":1,")).count();
    assert!(steps >= 9 && first <= 1, "{steps} steps, {first} of them the first");
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
    let long = ["--set", "phases.embedding.steps=60", "--checkpoint-every", "10", "--validate-every", "0"];
    let mut child = train(folder, "run", &long).spawn().unwrap();
    wait_for_steps(&mut child, &run.join("log.jsonl"), 12);
    while run.exists() {
        let _ = fs::remove_dir_all(&run);
    }
    wait_for(&mut child, || run.join("config.json").exists());
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
