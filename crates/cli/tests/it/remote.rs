//! Results at a URL, of a folder here: what every store does. What speaks S3: tests/s3.rs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::batch::{NAMES, command, line, subjects};
use crate::common::{contents, json, model, refuses, stderr, text, wait_for_steps};
use crate::table::plan;

/// The program on a machine that keeps its work in `work`.
fn on(work: &Path, line: &[String]) -> Command {
    let mut command = command(line);
    command.env("ATTNDREAMBOOTH_WORK", work);
    command
}

fn done(output: &Output) -> String {
    let said = stderr(output);
    assert!(output.status.success(), "{said}");
    said
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// All files below a folder by their names in it, but for leases and locks; JSON without what it took and where it was made.
fn results(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |path: &Path| path.strip_prefix(folder).unwrap().display().to_string();
    let all = contents(folder).into_iter().map(|(path, bytes)| (name(&path), bytes));
    let kept = all.filter(|(name, _)| !name.starts_with(".leases") && !name.ends_with(".lock"));
    kept.map(|(name, bytes)| match name.ends_with(".json") {
        true => {
            let mut value = serde_json::from_slice(&bytes).unwrap();
            forget(&mut value);
            (name, value.to_string().into_bytes())
        }
        false => (name, bytes),
    })
    .collect()
}

fn forget(value: &mut serde_json::Value) {
    // The whole of seconds.json.
    if value.is_number() {
        *value = 0.into();
    }
    if let Some(object) = value.as_object_mut() {
        for key in ["seconds", "generate_seconds", "train_seconds", "peak_memory", "run", "out", "model"] {
            let is_plain = object.get(key).is_some_and(|value| !value.is_object());
            if is_plain {
                object.remove(key);
            }
        }
        object.values_mut().filter(|value| value.is_object()).for_each(forget);
    }
}

#[test]
fn a_table_at_a_url_is_that_in_a_folder() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    let (plan, work) = (plan(folder, 2), folder.join("work"));
    let [in_folder, at_url] = ["in a folder", "at a url"].map(|name| folder.join(name));
    let url = format!("file://{}", text(&at_url).replace(' ', "%20"));
    let table = |action: &str, out: &str, more: &[&str]| -> Vec<String> {
        ["table", action, &plan, "--out", out].iter().chain(more).map(|&word| word.to_owned()).collect()
    };
    let run = |out: &str, more: &[&str]| {
        done(
            &on(&work, &table("run", out, &[&["--device", "cpu", "--keep", "images"], more].concat()))
                .output()
                .unwrap(),
        )
    };
    run(&text(&in_folder), &[]);
    let said = run(&url, &["--index", "3"]);
    assert!(said.contains(&format!("working in {}", work.display())) && said.contains(&url), "{said}");
    assert!(at_url.join("cells/tom/TI/seed-0/cell.json").exists() && !at_url.join("cells/tom/ours").exists());
    let planned = on(&work, &table("plan", &url, &["--device", "cpu"])).stdout(std::process::Stdio::piped()).output();
    assert!(String::from_utf8(planned.unwrap().stdout).unwrap().contains("3 of 4 cells are left"));
    run(&url, &[]);
    let (expected, found) = (results(&in_folder), results(&at_url));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name}");
    }
    // Nothing is left to do, whichever way it is looked at, and nothing is left of the work.
    let before = contents(&at_url);
    run(&url, &[]);
    run(&text(&at_url), &[]);
    let kept: Vec<_> = contents(&at_url).into_iter().filter(|(path, _)| !text(path).contains(".leases")).collect();
    assert_eq!(kept, before.into_iter().filter(|(path, _)| !text(path).contains(".leases")).collect::<Vec<_>>());
    assert!(
        contents(&work).keys().all(|path| text(path).contains("/.delivered/") || text(path).contains("/.markers/"))
    );

    // The scores alone are read.
    let collect = |out: &str| {
        let collected = on(&work, &table("collect", out, &[])).output().unwrap();
        done(&collected);
        json(&if out == url { at_url.join("table.json") } else { in_folder.join("table.json") })
    };
    let (mut ours, mut theirs) = (collect(&text(&in_folder)), collect(&url));
    for table in [&mut ours, &mut theirs] {
        for row in table["rows"].as_array_mut().unwrap() {
            row["generate_seconds"] = 0.into();
            row["cost"] = 0.into();
        }
    }
    assert_eq!(ours, theirs);
    assert!(at_url.join("table.html").exists());

    let refused = |line: &[String], said: &str| refuses(&line.iter().map(String::as_str).collect::<Vec<_>>(), said);
    refused(&table("study", &url, &[]), "a study shows images");
    refused(&table("run", "s4://x/y", &[]), "is no URL of results");
    refused(&table("run", "https://me:secret@x/y", &[]), "credentials are read from the environment");
    let batch = ["train", "--batch", &text(&folder.join("subjects.csv")), "--out", &url, "--model", &model()];
    subjects(folder);
    refused(&batch.map(str::to_owned), "has results of another command than \"train --batch\"");
    refused(&words(&format!("train --concept photos --category cat --out {url}")), "write to a URL");
    refused(&table("run", &text(&in_folder), &["--upload-checkpoints"]), "--upload-checkpoints is of results at a URL");
}

#[test]
fn runs_go_on_elsewhere_from_checkpoints_that_were_uploaded() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path();
    subjects(folder);
    let url = format!("file://{}", text(&folder.join("out")));
    let of = |out: &str, more: &[&str]| {
        let mut line = line(folder, "40", &[&["--checkpoint-every", "4"], more].concat());
        line[4] = out.to_owned();
        line
    };
    let machine = |name: &str| folder.join(name);
    let start = |name: &str| on(&machine(name), &of(&url, &["--upload-checkpoints"])).spawn().unwrap();
    let saved = folder.join("out/.checkpoints/rex/manifest.json");
    let log = |name: &str| {
        let results = fs::read_dir(machine(name).join("results")).ok();
        results.and_then(|mut all| Some(all.next()?.unwrap().path().join("rex/log.jsonl"))).unwrap_or_default()
    };

    // One machine disappears at once, the next one is told to stop, and the third finishes.
    let mut killed = start("one");
    while !saved.exists() {
        assert!(killed.try_wait().unwrap().is_none(), "it ended without a checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut asked = start("two");
    while !log("two").exists() {
        assert!(asked.try_wait().unwrap().is_none(), "it ended without a step");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let begun = fs::read_to_string(log("two")).unwrap().lines().count();
    wait_for_steps(&mut asked, &log("two"), begun + 3);
    Command::new("kill").arg(asked.id().to_string()).status().unwrap();
    let asked = asked.wait_with_output().unwrap();
    let said = stderr(&asked);
    assert_eq!(asked.status.code(), Some(75), "{said}");
    assert!(said.contains("rex goes on from a checkpoint that was uploaded"), "{said}");
    // What it was told to stop at is there, not only what it had saved on its way.
    let stopped_at = fs::read_to_string(log("two")).unwrap().lines().count();
    let names = json(&saved)["files"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let state = names.iter().find(|name| name.ends_with(&format!("-{stopped_at:05}/state.json")));
    assert!(state.is_some(), "{stopped_at} steps: {names:?}");
    let said = done(&start("three").wait_with_output().unwrap());
    assert!(said.contains("rex goes on from a checkpoint that was uploaded"), "{said}");
    assert!(!folder.join("out/.checkpoints/rex").join("manifest.json").exists());

    // As one process alone, in a folder.
    done(&on(&machine("alone"), &of(&text(&folder.join("alone-out")), &[])).output().unwrap());
    for name in NAMES {
        let steps = |out: &str| -> Vec<serde_json::Value> {
            let text = fs::read_to_string(folder.join(out).join(name).join("log.jsonl")).unwrap();
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].clone()).collect()
        };
        assert_eq!(steps("out"), steps("alone-out"), "{name}");
        let learned = |out: &str| fs::read(folder.join(out).join(name).join("learned_embeds.safetensors")).unwrap();
        assert!(learned("out") == learned("alone-out"), "{name}");
    }
    // Finished runs are skipped, and refused where other options are given.
    let before = contents(&folder.join("out/rex"));
    done(&on(&machine("four"), &of(&url, &[])).output().unwrap());
    let other = on(&machine("four"), &of(&url, &["--seed", "9"])).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    let said = stderr(&other);
    assert!(said.contains("was made with other options: ") && said.contains(&format!("{url}/rex")), "{said}");
    assert!(contents(&folder.join("out/rex")) == before);
}
