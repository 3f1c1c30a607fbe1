//! `report` and `compare` as a user runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

/// A run with two images.
fn run_folder(parent: &Path, name: &str, learning_rate: f64) -> PathBuf {
    let (run, photos) = (parent.join(name), parent.join("photos"));
    fs::create_dir_all(run.join("images")).unwrap();
    fs::create_dir_all(&photos).unwrap();
    let image = |path: PathBuf, shade: u8| image::RgbImage::from_pixel(32, 32, [shade; 3].into()).save(path).unwrap();
    image(photos.join("0.png"), 7);
    image(run.join("images/0.png"), 70);
    image(run.join("images/1.png"), 140);
    let unet = json!({
        "trains": {"unet": {}}, "steps": 9, "learning_rate": learning_rate, "batch_size": 1, "lambda_mean": 0.1, "lambda_variance": 0.0,
    });
    let config = json!({"concept": photos, "category": "dog", "phases": {"unet": unet}});
    let sha256 = fingerprint::of_bytes(fs::read(photos.join("0.png")).unwrap());
    let record = json!({
        "config": config, "base_model": {"name": "model", "sha256": {}}, "photos": [{"file": "0.png", "sha256": sha256}],
        "versions": {"format": "3"},
    });
    fs::write(run.join("config.json"), record.to_string()).unwrap();
    let line = |number: u64| {
        let entry = runs::ImageEntry {
            file: format!("{number}.png"),
            prompt: "a [V] dog".to_owned(),
            seed: number,
            ..runs::ImageEntry::default()
        };
        serde_json::to_string(&entry).unwrap()
    };
    fs::write(run.join("images/generate.jsonl"), [line(0), line(1)].join("\n")).unwrap();
    run
}

fn attndreambooth(args: &[&str], paths: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attndreambooth")).args(args).args(paths).output().unwrap()
}

fn fails(output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(words) && !text.contains("panicked"), "{text}");
}

#[test]
fn a_report_is_written_into_the_run() {
    let parent = tempfile::tempdir().unwrap();
    let run = run_folder(parent.path(), "run", 1e-5);
    let output = attndreambooth(&["report", "--run"], &[&run]);
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read_to_string(run.join("report.html")).unwrap().contains("1e-5"));
    // Its own pages are written anew, and nothing else is.
    let report = |out: &Path| attndreambooth(&["report", "--run"], &[&run, Path::new("--out"), out]);
    let page = parent.path().join("page.html");
    for _ in 0..2 {
        assert!(report(&page).status.success());
        assert!(fs::read_to_string(&page).unwrap().contains("<meta name=\"generator\" content=\"attndreambooth "));
    }
    let config = fs::read(run.join("config.json")).unwrap();
    fails(&report(&run.join("config.json")), "config.json: it exists and is not a page of this program; remove it");
    fails(&report(Path::new("/dev/null")), "/dev/null: it is a device");
    std::os::unix::fs::symlink("page.html", parent.path().join("link.html")).unwrap();
    fails(&report(&parent.path().join("link.html")), "link.html: it is a symbolic link");
    fs::write(run.join("report.html"), "<html>mine</html>").unwrap();
    fails(&attndreambooth(&["report", "--run"], &[&run]), "report.html: it exists and is not a page of this program");
    assert_eq!(fs::read(run.join("config.json")).unwrap(), config);
    fails(&attndreambooth(&["report", "--run"], &[parent.path()]), "is not the folder of a training run");
}

#[test]
fn a_comparison_prints_its_table_and_answers_are_counted() {
    let parent = tempfile::tempdir().unwrap();
    let [a, b] = [("a", 1e-5), ("b", 2e-6)].map(|(name, rate)| run_folder(parent.path(), name, rate));
    let out = parent.path().join("out");
    let output = attndreambooth(&["compare", "--out"], &[&out, &a, &b]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().nth(1), Some("phases.unet.learning_rate  1e-5  2e-6"));
    let page = fs::read_to_string(out.join("study.html")).unwrap();
    for file in ["compare.html", "compare.json"] {
        assert!(out.join(file).exists(), "{file}");
    }
    fails(&attndreambooth(&["compare"], &[&a]), "2 values required");
    // Again into the same folder; not over somebody's page.
    assert!(attndreambooth(&["compare", "--out"], &[&out, &a, &b]).status.success());
    let others = parent.path().join("others");
    fs::create_dir(&others).unwrap();
    fs::write(others.join("study.html"), "mine").unwrap();
    fails(
        &attndreambooth(&["compare", "--out"], &[&others, &a, &b]),
        "(it has \"study.html\") and not a folder that \"compare\" has made",
    );
    assert_eq!(fs::read_dir(&others).unwrap().count(), 1);

    // What the page saves: its own data, and what was chosen.
    let of_page = |name: &str| page.split_once(&format!("{name}=\"")).unwrap().1.split('"').next().unwrap().to_owned();
    let answers = [json!({"question": 0, "choice": "left"}), json!({"question": 1, "choice": "left"})];
    let file =
        json!({"study": of_page("data-study"), "session": "1", "sealed": of_page("data-sealed"), "answers": answers});
    let path = parent.path().join("answers.json");
    fs::write(&path, file.to_string()).unwrap();
    let output = attndreambooth(&["compare", "--answers"], &[&path, &path]);
    // Of two questions, each run is on the left in one.
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().nth(1), Some("a    b             1 of 2   50.0 %  9.5 % to 90.5 %"), "{text}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is left out"));
    fails(&attndreambooth(&["compare", "--answers"], &[&a.join("config.json")]), "not the answers of a study");
}

#[test]
fn runs_that_no_study_can_be_made_of_are_compared_nevertheless() {
    let parent = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| run_folder(parent.path(), name, 1e-5));
    fs::remove_file(b.join("images/generate.jsonl")).unwrap();
    let out = parent.path().join("out");
    let output = attndreambooth(&["compare", "--out"], &[&out, &a, &b]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("note: there is no study: the runs have no images of the same prompt and seed"), "{text}");
    assert!(out.join("compare.html").exists() && !out.join("study.html").exists());
}
