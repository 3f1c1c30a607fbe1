//! What becomes of unfinished files when processes end early. Each test starts this program again as such a process.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where the other process works, in its environment.
const FOLDER: &str = "ATOMIC_TEST_FOLDER";

/// Runs the ignored test `name` in another process; returns when it has said that it is in the middle of writing.
fn start(name: &str, folder: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.contains("writing")), "{name} did not get there");
    child
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A folder in a folder's place, and a file beside it, both by half. Then `ending`.
fn write_by_half(ending: impl Fn()) {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let _ = atomic::new_folder(&folder.join("folder"), |hidden| {
        fs::write(hidden.join("half"), "")?;
        atomic::replace_file(&folder.join("file"), |file, _| {
            file.write_all(b"half")?;
            let mut out = std::io::stdout().lock();
            writeln!(out, "\nwriting")?;
            out.flush()?;
            drop(out);
            ending();
            Ok(())
        })
    });
}

#[test]
#[ignore = "part of others"]
fn child_waits() {
    write_by_half(|| std::thread::sleep(std::time::Duration::from_secs(600)));
}

#[test]
#[ignore = "part of others"]
fn child_discards() {
    write_by_half(|| {
        std::thread::spawn(|| {
            atomic::discard_unfinished();
            std::process::exit(7);
        });
        // What is finished from now on would not be discarded.
        std::thread::sleep(std::time::Duration::from_millis(50));
    });
}

#[test]
fn the_next_process_removes_what_a_killed_one_left_and_nothing_that_is_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start("child_waits", folder.path());
    let half = names(folder.path());
    assert!(half.len() == 2 && half.iter().all(|name| name.starts_with(atomic::PARTIAL)), "{half:?}");
    // By another process, as each looks once: it is at work.
    write_in_another_process(folder.path());
    assert_eq!(names(folder.path()), [&half[..], &["written".to_owned()]].concat());
    child.kill().unwrap();
    child.wait().unwrap();
    write_in_another_process(folder.path());
    assert_eq!(names(folder.path()), ["written"]);
}

#[test]
#[ignore = "part of others"]
fn child_writes() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    atomic::write(&Path::new(&folder).join("written"), "whole").unwrap();
    std::io::stdout().write_all(b"\nwriting is done\n").unwrap();
}

fn write_in_another_process(folder: &Path) {
    assert!(start("child_writes", folder).wait().unwrap().success());
}

#[test]
fn a_process_that_ends_early_can_take_what_is_unfinished_with_it() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(start("child_discards", folder.path()).wait().unwrap().code(), Some(7));
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}
