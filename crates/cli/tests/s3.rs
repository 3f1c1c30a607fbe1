//! Results, photos and models in a bucket, by moto's server on the PATH or as MOTO_SERVER names it, behind a proxy that breaks things.
//! Where there is none, these tests are ignored, and with REQUIRE_MOTO=1 they fail.
#![allow(clippy::unwrap_used)]

#[path = "../../remote/tests/moto/mod.rs"]
mod moto;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use golden::fixtures;
use moto::{BUCKET, Fault, KEY, Moto, SECRET, Test};

const TESTS: [Test; 2] = [
    ("two_workers_share_a_table_in_a_bucket", two_workers_share_a_table_in_a_bucket),
    ("what_cannot_be_uploaded_is_kept_and_uploaded_later", what_cannot_be_uploaded_is_kept_and_uploaded_later),
];

fn main() -> ExitCode {
    moto::run(moto::program().map(|program| Moto::start(&program, moto::free())), &TESTS)
}

fn photos(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for n in 0..3_u32 {
        let photo =
            image::RgbImage::from_fn(80 + n, 64, |x, y| [(x * 3) as u8, (y * 4 + n * 50) as u8, (x ^ y) as u8].into());
        photo.save(folder.join(format!("{n}.png"))).unwrap();
    }
}

/// A plan of a method of a step and the two bounds.
fn plan(folder: &Path, name: &str, model: &str, photos: &str) -> String {
    fs::write(folder.join("prompts.txt"), "a {} on the beach\na {} in space\n").unwrap();
    let judge = fixtures().join("tiny-clip").display().to_string();
    let text = format!(
        r#"
name = "{name}"
model = "{model}"
judge = "{judge}"
prompts = "prompts.txt"
images = 1
steps = 2
reference = "TI"
subjects = [{{ name = "tom", photos = "{photos}", category = "cat" }}]

[[methods]]
name = "TI"
method = "textual-inversion"
steps = 1
batch_size = 2
resolution = 64
"#
    );
    let file = folder.join("plan.toml");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// The program on a machine that keeps its work in `work`.
fn program(server: &Moto, work: &Path, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
    command.args(line).env("OMP_NUM_THREADS", "1").env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.env("ATTNDREAMBOOTH_WORK", work).envs(Moto::environment(server.address));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it said, with its exit code; nothing of it, and nothing that it has written, shows a key.
fn said(output: &Output, code: i32) -> String {
    let all = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    assert_eq!(output.status.code(), Some(code), "{all}");
    assert!(!all.contains(SECRET) && !all.contains(KEY) && !all.contains("panicked"), "{all}");
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn shows_no_key(folder: &Path) {
    for path in files(folder) {
        let bytes = fs::read(&path).unwrap();
        for hidden in [SECRET, KEY] {
            assert!(!bytes.windows(hidden.len()).any(|part| part == hidden.as_bytes()), "{}", path.display());
        }
    }
}

/// The names in the bucket, as the server lists them.
fn names(server: &Moto, prefix: &str) -> Vec<String> {
    let listed = server.raw("GET", &format!("/{BUCKET}?list-type=2&prefix={prefix}"));
    assert!(listed.contains("200 OK"), "{listed}");
    listed.split("<Key>").skip(1).map(|part| part.split("</Key>").next().unwrap().to_owned()).collect()
}

fn two_workers_share_a_table_in_a_bucket(server: &Moto, _: &str, folder: &Path) {
    // Model and photos are in the bucket as well.
    let model = fixtures().join("tiny-sd21");
    for path in files(&model) {
        let name = path.strip_prefix(&model).unwrap().display().to_string();
        server.put(&format!("/{BUCKET}/models/tiny/{name}"), &fs::read(&path).unwrap());
    }
    photos(&folder.join("photos"));
    for path in files(&folder.join("photos")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        server.put(&format!("/{BUCKET}/photos/tom/{name}"), &fs::read(&path).unwrap());
    }
    let plan = plan(folder, "shared", &format!("s3://{BUCKET}/models/tiny"), &format!("s3://{BUCKET}/photos/tom"));
    let url = format!("s3://{BUCKET}/shared");
    let run = ["table", "run", &plan, "--out", &url, "--device", "cpu"];
    server.calm();
    server.rule("PUT", "cells", Fault::Answer(503, "SlowDown"), 2);
    server.rule("PUT", "cell.json", Fault::LoseAnswer, 1);
    server.rule("GET", "models", Fault::CutAnswer, 1);
    let works = ["one", "two"].map(|name| folder.join(name));
    let workers = [0, 1].map(|worker: usize| program(server, &works[worker], &run).spawn().unwrap());
    for worker in workers {
        said(&worker.wait_with_output().unwrap(), 0);
    }
    let lines = server.calm();
    // Each worker has read the weights once, for all of its cells.
    let weights =
        lines.iter().filter(|line| line.starts_with("GET") && line.contains("unet") && line.contains(".safetensors"));
    assert!((2..=3).contains(&weights.clone().count()), "{:?}", weights.collect::<Vec<_>>());
    let cells: Vec<String> =
        names(server, "shared/cells").into_iter().filter(|name| name.ends_with("cell.json")).collect();
    assert_eq!(cells.len(), 3, "{cells:?}");
    assert!(names(server, "shared/.probe").is_empty());
    // A cell was begun by one of them.
    for cell in &cells {
        let created = lines.iter().filter(|line| line.starts_with("PUT") && line.contains(&cell.replace(' ', "%20")));
        assert!((1..=3).contains(&created.count()), "{cell}: {lines:?}");
    }

    let collect = ["table", "collect", &plan, "--out", &url, "--format", "csv"];
    let csv = said(&program(server, &works[0], &collect).output().unwrap(), 0);
    for row in ["real pictures", "base model", "TI"] {
        assert!(csv.contains(row), "{csv}");
    }
    assert!(server.calm().iter().all(|line| !line.contains(".png")), "more than scores was read");
    assert!(names(server, "shared/table").contains(&"shared/table.html".to_owned()));
    shows_no_key(folder);
    // A worker that comes later has nothing to do.
    let late = said(&program(server, &folder.join("late"), &run).output().unwrap(), 0);
    assert!(late.contains("3 cell(s) are done in s3://"), "{late}");
}

fn what_cannot_be_uploaded_is_kept_and_uploaded_later(server: &Moto, _: &str, folder: &Path) {
    photos(&folder.join("photos"));
    let model = fixtures().join("tiny-sd21").display().to_string();
    let plan = plan(folder, "kept", &model, "photos");
    let url = format!("s3://{BUCKET}/kept");
    let work = folder.join("work");
    let run =
        || program(server, &work, &["table", "run", &plan, "--out", &url, "--device", "cpu", "--index", "2"]).output();
    // A wrong key, before anything is computed.
    let wrong =
        program(server, &work, &["table", "run", &plan, "--out", &url]).env("AWS_ACCESS_KEY_ID", "AKIAOTHER").output();
    let refused = said(&wrong.unwrap(), 2);
    assert!(refused.contains("the server does not accept the credentials of the environment"), "{refused}");
    assert!(files(&work).iter().all(|path| !path.ends_with("cell.json")));

    for (code, words) in [("AccessDenied", "(HTTP 403, AccessDenied)"), ("QuotaExceeded", "(HTTP 403, QuotaExceeded)")]
    {
        server.rule("PUT", "figures", Fault::Answer(403, code), usize::MAX);
        let kept = said(&run().unwrap(), 2);
        server.calm();
        assert!(kept.contains("is done and kept in ") && kept.contains(words), "{kept}");
        assert!(names(server, "kept/cells").iter().all(|name| !name.ends_with("cell.json")));
    }
    let record: Vec<PathBuf> = files(&work).into_iter().filter(|path| path.ends_with("cell.json")).collect();
    assert_eq!(record.len(), 1);
    let before = fs::read_to_string(&record[0]).unwrap();
    // What was computed is not computed again.
    let uploaded = said(&run().unwrap(), 0);
    assert!(!uploaded.contains("cell 2 of 3"), "{uploaded}");
    assert!(!record[0].exists());
    let there = server.raw("GET", &format!("/{BUCKET}/kept/cells/tom/TI/seed-0/cell.json"));
    assert!(there.ends_with(&before), "{there}");
    shows_no_key(folder);
}
