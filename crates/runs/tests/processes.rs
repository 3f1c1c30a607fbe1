//! What other processes see, and what a killed one leaves. The test binary runs itself as the other process.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runs::{Entry, Log, RunFolder, Scalars, read_log};
use serde_json::json;

const FOLDER: &str = "JOURNAL_TEST_FOLDER";
const FULL: &str = "JOURNAL_TEST_FULL";

/// Not a test of its own: begins a run in the folder that the variable names and records steps until it is killed.
#[test]
#[ignore = "a process of other tests"]
fn worker() {
    let path = std::env::var_os(FOLDER).unwrap();
    let run = RunFolder::create(path.as_ref()).unwrap();
    run.write_config(&json!({"seed": 1}), []).unwrap();
    let mut log = Log::open(run.path(), 0).unwrap();
    let mut scalars = Scalars::open(run.path(), 0).unwrap();
    for step in 1.. {
        let entry = Entry::now(step, "stage", [("loss", 1.0 / step as f64)]);
        log.append(&entry).unwrap();
        scalars.append(&entry).unwrap();
        println!("step {step} done");
    }
}

/// Not a test of its own: logs in the folder that the variable names until the disk is full.
#[test]
#[ignore = "a process of another test"]
fn filler() {
    let path = std::env::var_os(FULL).unwrap();
    let mut log = Log::open(path.as_ref(), 0).unwrap();
    let error = (1..).find_map(|step| log.append(&Entry::now(step, "stage", [("loss", 0.1)])).err()).unwrap();
    println!("{error:#}");
}

#[test]
fn a_full_disk_leaves_whole_lines_and_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    // To the process, a limit on the size of files is a disk that is full in the middle of a line.
    let limited = r#"trap "" XFSZ; ulimit -f 8; exec "$0" filler --exact --ignored --nocapture"#;
    let output = Command::new("sh")
        .args(["-c".as_ref(), limited.as_ref(), std::env::current_exe().unwrap().as_os_str()])
        .env(FULL, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let log = fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    let lines = log.lines().count();
    let expected = format!("cannot write step {} to {}/log.jsonl: ", lines + 1, folder.path().display());
    assert!(said.contains(&expected), "{said}");
    assert!(lines > 10 && log.ends_with("}\n"));
    assert_eq!(read_log(folder.path()).unwrap().len(), lines);
}

/// A process that works in the folder and has done some steps.
fn working_in(path: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["worker", "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with("step 20 done")), "the worker failed");
    // It shall not wait for a reader, nor fail for want of one.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn a_folder_in_use_is_refused_until_its_process_dies() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    let mut child = working_in(&path);
    for refused in [RunFolder::create(&path), RunFolder::resume(&path)] {
        let message = refused.unwrap_err().to_string();
        let expected = format!("{} is in use by process {};", path.display(), child.id());
        assert!(message.contains(&expected), "{message}");
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let run = RunFolder::resume(&path).unwrap();
    assert_eq!(run.saved_config().unwrap().config, json!({"seed": 1}));
    let mut log = Log::open(run.path(), 10).unwrap();
    let mut scalars = Scalars::open(run.path(), 10).unwrap();
    let entry = Entry::now(11, "stage", [("loss", 0.5)]);
    log.append(&entry).unwrap();
    scalars.append(&entry).unwrap();
    let steps: Vec<u64> = read_log(run.path()).unwrap().iter().map(|entry| entry.step).collect();
    assert_eq!(steps, Vec::from_iter(1..=11));
}

#[test]
fn a_folder_with_a_run_is_not_begun_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("deep/run");
    let run = RunFolder::create(&path).unwrap();
    // Killed before it had a configuration, a run is none.
    drop(run);
    let run = RunFolder::create(&path).unwrap();
    run.write_config(&json!({}), []).unwrap();
    drop(run);
    let config = fs::read(path.join("config.json")).unwrap();
    let message = RunFolder::create(&path).unwrap_err().to_string();
    assert_eq!(
        message,
        format!("{} already holds a run; resume it with --resume, or choose another --out", path.display())
    );
    assert_eq!(fs::read(path.join("config.json")).unwrap(), config);
    RunFolder::resume(&path).unwrap();
}

#[test]
fn where_there_is_no_run_none_is_resumed() {
    let parent = tempfile::tempdir().unwrap();
    for path in [parent.path().join("missing"), parent.path().to_owned()] {
        let message = RunFolder::resume(&path).unwrap_err().to_string();
        assert_eq!(
            message,
            format!("there is no run in {} to resume; leave out --resume to start one", path.display())
        );
    }
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().join("run");
    let error = format!("{:#}", RunFolder::create(&path).unwrap_err());
    assert!(error.starts_with(&format!("cannot create the run folder {}", path.display())), "{error}");
}
