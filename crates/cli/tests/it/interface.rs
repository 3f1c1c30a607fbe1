//! What the program shows of itself: help, configuration, versions, completions, and events as JSON.

use std::path::Path;

use serde_json::Value;

use crate::common::{model, photos, program, refuses, stderr, succeed, train};

/// After a change that is meant: `TRYCMD=overwrite cargo test -p attndreambooth --test it interface`.
#[test]
fn help_and_configurations_are_as_recorded() {
    trycmd::TestCases::new()
        .register_bin("attndreambooth", Path::new(env!("CARGO_BIN_EXE_attndreambooth")))
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .case("tests/snapshots/*.trycmd");
}

#[test]
fn version_tells_the_commit_and_libtorch() {
    let output = succeed(&["--version"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(&format!("attndreambooth {}", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(lines[1].starts_with("LibTorch 2."), "{text}");
}

#[test]
fn shells_get_their_completions() {
    for (shell, words) in [("bash", "complete -F"), ("zsh", "#compdef attndreambooth"), ("fish", "complete -c")] {
        let script = String::from_utf8(succeed(&["completions", shell]).stdout).unwrap();
        assert!(script.contains(words) && script.contains("validate-every"), "{shell}: {script}");
    }
}

/// The lines of standard output, each a JSON object.
fn lines(stdout: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(stdout).unwrap();
    assert!(text.is_ascii(), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_are_json_lines_and_nothing_else_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (out, model) = (folder.path().join("out").display().to_string(), model());
    let size = ["--steps", "2", "--height", "64", "--width", "64", "--device", "cpu", "--model", &model, "--out", &out];
    let arguments =
        [&["--json", "generate", "--prompt", "ein K\u{e4}tzchen \u{1f431}", "--seed", "3"], &size[..]].concat();
    let output = succeed(&arguments);
    assert_eq!(stderr(&output), "");
    let events = lines(&output.stdout);
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    let (progress, image, result) = (of("progress"), of("image"), of("result"));
    let last = progress.last().unwrap();
    // One at the start, and one a step.
    assert!(progress[0]["done"] == 0 && last["done"] == last["total"], "{last}");
    assert_eq!(progress.len() as u64, 1 + last["total"].as_u64().unwrap());
    assert_eq!(image[0]["path"], format!("{out}/0000-seed3.png"));
    assert_eq!(events.last(), Some(result[0]));
    assert_eq!(
        (&result[0]["result"]["command"], &result[0]["result"]["images"][0]),
        (&"generate".into(), &image[0]["path"])
    );

    let output = program(&["generate", "--json", "--model", "/no/model", "--prompt", "a"]);
    assert_eq!(output.status.code(), Some(2));
    let error = &lines(&output.stdout)[0];
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &2.into()));
}

#[test]
fn quiet_leaves_results_and_notes() {
    let folder = tempfile::tempdir().unwrap();
    let (out, model) = (folder.path().display().to_string(), model());
    let size = ["--steps", "1", "--height", "64", "--width", "64", "--device", "cpu", "--model", &model, "--out", &out];
    let output = succeed(&[&["generate", "-q", "--prompt", "a (cat:1.2)"], &size[..]].concat());
    let text = stderr(&output);
    assert!(text.lines().count() == 1 && text.starts_with("note: "), "{text}");
}

#[test]
fn a_dry_run_checks_everything_and_writes_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let output = train(folder, "run", &["--dry-run"]).output().unwrap();
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(!folder.join("run").exists());
    assert!(text.contains("notes.txt"), "{text}");
    let text = String::from_utf8(output.stdout).unwrap();
    for words in ["phase 1, embedding        6 steps", "18 steps", "memory", "nothing was written"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let model = model();
    let wrong = ["train", "--dry-run", "--device", "cpu", "--model", &model, "--category", "", "--concept"];
    refuses(&[&wrong[..], &[&folder.join("photos").display().to_string()]].concat(), "category is empty");
}

#[test]
fn the_schema_names_every_key_of_the_configuration() {
    let schema: Value = serde_json::from_slice(&succeed(&["config", "schema"]).stdout).unwrap();
    let config: Value = serde_json::from_slice(&succeed(&["config", "print"]).stdout).unwrap();
    for key in config.as_object().unwrap().keys() {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}
