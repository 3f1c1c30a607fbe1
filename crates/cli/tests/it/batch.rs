//! `train --batch`: many subjects, several workers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{contents, model, photos, refuses, stderr, text, wait_for_steps};

/// Names of subjects, each with photos of its own.
pub(crate) const NAMES: [&str; 3] = ["rex", "tom", "ada"];

pub(crate) fn subjects(folder: &Path) -> String {
    let mut file = "photos,category,batch_size\n".to_owned();
    for name in NAMES {
        photos(&folder.join(name));
        file += &format!("{name},cat,2\n");
    }
    let path = folder.join("subjects.csv");
    fs::write(&path, file).unwrap();
    text(&path)
}

/// The embedding alone, in `steps` steps.
pub(crate) fn line(folder: &Path, steps: &str, more: &[&str]) -> Vec<String> {
    let (file, out) = (text(&folder.join("subjects.csv")), text(&folder.join("out")));
    let words = ["train", "--batch", &file, "--out", &out, "--model", &model(), "--method", "textual-inversion"];
    let options =
        ["--steps", steps, "--resolution", "64", "--results", "none", "--device", "cpu", "--validate-every", "0"];
    words.iter().chain(&options).chain(more).map(|&word| word.to_owned()).collect()
}

pub(crate) fn command(line: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
    command.args(line).env("OMP_NUM_THREADS", "1").env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn refused(line: &[String], said: &str) {
    refuses(&line.iter().map(String::as_str).collect::<Vec<_>>(), said);
}

#[test]
fn subjects_are_learned_each_in_a_run_of_its_own_and_failed_ones_are_listed() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    subjects(folder);
    let run = |more: &[&str]| command(&line(folder, "2", more)).output().unwrap();
    refused(&line(folder, "2", &["--index", "3"]), "no subject 3 (--index): the subjects are numbered from 0 to 2");
    refused(&line(folder, "2", &["--resume"]), "--resume");
    refused(&["train", "--index", "0"].map(str::to_owned), "give --batch as well");

    // Two of three cannot be learned; the third is, and nothing is kept of the others.
    for name in ["rex", "ada"] {
        fs::rename(folder.join(name), folder.join(format!("{name}-away"))).unwrap();
    }
    let failed = run(&[]);
    let said = stderr(&failed);
    assert_eq!(failed.status.code(), Some(2), "{said}");
    let list = said.split("2 of 3 subjects failed:").nth(1).unwrap_or_else(|| panic!("{said}"));
    let names: Vec<&str> = list.lines().filter_map(|line| line.trim().split_once(": ")).map(|(name, _)| name).collect();
    assert_eq!(names, ["rex", "ada"], "{said}");
    assert!(list.contains("photos") && !said.contains("panicked"), "{said}");
    let learned = |name: &str| folder.join("out").join(name).join("learned_embeds.safetensors");
    assert!(learned("tom").exists() && !learned("rex").exists());

    for name in ["rex", "ada"] {
        fs::rename(folder.join(format!("{name}-away")), folder.join(name)).unwrap();
    }
    let before = contents(&folder.join("out/tom"));
    // By a scheduler's variable, one; then the rest.
    let task = command(&line(folder, "2", &[])).env("SLURM_ARRAY_TASK_ID", "2").output().unwrap();
    assert!(task.status.success() && learned("ada").exists() && !learned("rex").exists(), "{}", stderr(&task));
    assert!(run(&[]).status.success());
    assert!(learned("rex").exists());
    assert!(contents(&folder.join("out/tom")) == before, "a finished run was written to");

    refused(&line(folder, "3", &[]), "was made with other options: ");
    assert!(contents(&folder.join("out/tom")) == before, "a finished run was written to");
}

#[test]
fn a_dead_workers_subject_is_taken_over_and_no_step_is_done_by_two() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    subjects(folder);
    let start = || command(&line(folder, "40", &["--checkpoint-every", "4"])).spawn().unwrap();
    let log = |name: &str| folder.join("out").join(name).join("log.jsonl");
    let mut killed = start();
    wait_for_steps(&mut killed, &log("rex"), 6);
    killed.kill().unwrap();
    killed.wait().unwrap();

    // Three others: one is asked to stop, and two go on.
    let mut asked = start();
    wait_for_steps(&mut asked, &log("rex"), 10);
    let others = [start(), start()];
    // Slurm's batch file passes on what the process may have heard itself.
    for signal in ["USR1", "TERM", "USR1"] {
        Command::new("kill").args([&format!("-{signal}"), &asked.id().to_string()]).status().unwrap();
    }
    let asked = asked.wait_with_output().unwrap();
    assert_eq!(asked.status.code(), Some(75), "{}", stderr(&asked));
    for other in others {
        let other = other.wait_with_output().unwrap();
        assert!(other.status.success(), "{}", stderr(&other));
    }
    let finish = start().wait_with_output().unwrap();
    assert!(finish.status.success(), "{}", stderr(&finish));

    // As one process alone.
    let mut alone = line(folder, "40", &["--checkpoint-every", "4"]);
    alone[4] = text(&folder.join("alone"));
    assert!(command(&alone).output().unwrap().status.success());
    for name in NAMES {
        let steps = |out: &str| -> Vec<serde_json::Value> {
            let text = fs::read_to_string(folder.join(out).join(name).join("log.jsonl")).unwrap();
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].clone()).collect()
        };
        assert_eq!(steps("out"), steps("alone"), "{name}");
        let learned = |out: &str| fs::read(folder.join(out).join(name).join("learned_embeds.safetensors")).unwrap();
        assert!(learned("out") == learned("alone"), "{name}");
    }
}

#[test]
fn a_worker_whose_lease_is_anothers_ends_without_writing() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    subjects(folder);
    let long = line(folder, "100000", &["--index", "0", "--checkpoint-every", "100000"]);
    let run = folder.join("out/rex");
    let lease = |number: u32| folder.join(format!("out/.leases/rex/lease-{number}.json"));
    let mut worker = command(&long).spawn().unwrap();
    wait_for_steps(&mut worker, &run.join("log.jsonl"), 2);
    // As another machine does that has seen no heartbeat: it was suspended for so long.
    fs::write(lease(2), fs::read(lease(1)).unwrap()).unwrap();
    let ended = worker.wait_with_output().unwrap();
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(75), "{said}");
    assert!(said.contains("another may be at its work"), "{said}");
    assert!(!run.join("checkpoints").exists(), "it has saved a checkpoint");

    // One that is asked to stop gives it back, so that others need not wait. The process of lease 2 is dead, which is seen here.
    fs::remove_file(run.join("log.jsonl")).unwrap();
    let mut worker = command(&long).spawn().unwrap();
    wait_for_steps(&mut worker, &run.join("log.jsonl"), 2);
    Command::new("kill").arg(worker.id().to_string()).status().unwrap();
    assert_eq!(worker.wait_with_output().unwrap().status.code(), Some(75));
    let given_back: serde_json::Value = serde_json::from_slice(&fs::read(lease(3)).unwrap()).unwrap();
    assert_eq!(given_back["released"], true);
}
