//! Prior preservation with images that the base model draws first.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{assert_same_result, photos, stderr, train};

const SHORT: [&str; 10] = [
    "--set",
    "phases.embedding.steps=1",
    "--set",
    "phases.cross_attention.steps=0",
    "--set",
    "phases.unet.steps=1",
    "--validate-every",
    "0",
    "--set",
    "prior.steps=2",
];

fn run(folder: &Path, out: &str, more: &[&str]) -> String {
    let output = train(folder, out, &[&SHORT[..], more].concat()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

/// The names and bytes of the images in a folder, in order of the names.
fn images(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.map(|path| (path.file_name().unwrap().display().to_string(), path)).collect();
    files.sort();
    files.into_iter().map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

#[test]
fn missing_images_are_drawn_once_and_a_resumed_run_draws_only_the_rest() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let said = run(folder, "whole", &["--prior-preservation", "--prior-images", "5"]);
    assert!(said.contains("images of the class noun 5/5"), "{said}");
    let drawn = images(&folder.join("whole/prior"));
    let names: Vec<&str> = drawn.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [0, 1, 2, 3, 4].map(|i| format!("drawn-0000{i}.png")));
    assert!(drawn.windows(2).all(|pair| pair[0].1 != pair[1].1), "each has a seed of its own");
    let config = fs::read_to_string(folder.join("whole/config.json")).unwrap();
    assert!(config.contains(r#""prompt": "a photo of a [category]""#), "{config}");

    // Killed while it draws; what is there is not touched, and the result is the same.
    let prior = folder.join("killed/prior");
    let mut child = train(folder, "killed", &[&SHORT[..], &["--prior-images", "5"]].concat()).spawn().unwrap();
    while !prior.join("drawn-00001.png").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let first = prior.join("drawn-00000.png");
    let before = fs::metadata(&first).unwrap().modified().unwrap();
    let resumed = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args(["train", "--device", "cpu", "--resume", "--out"])
        .arg(folder.join("killed"))
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), before);
    let visible = |(name, _): &(String, Vec<u8>)| !name.starts_with('.');
    let again: Vec<_> = images(&prior).into_iter().filter(visible).collect();
    assert!(again == drawn);
    assert_same_result(folder, "whole", "killed");
}

#[test]
fn images_of_ones_own_count_and_belong_to_the_run() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    photos(&folder.join("photos"));
    let own = folder.join("cats");
    photos(&own);
    let path = own.display().to_string();
    let said = run(folder, "run", &["--prior-folder", &path, "--prior-images", "4"]);
    assert!(said.contains("images of the class noun 1/1"), "{said}");
    let names: Vec<String> = images(&own).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["0.png", "1.png", "2.png", "drawn-00000.png", "notes.txt"]);
    // Enough of them: nothing is drawn, and no folder made.
    let said = run(folder, "enough", &["--prior-folder", &path, "--prior-images", "3"]);
    assert!(!said.contains("images of the class noun") && !folder.join("enough/prior").exists(), "{said}");

    // Another seed draws others, and so may another model or category.
    let drawn = |more: &[&str]| {
        let given = ["--prior-folder", &path, "--prior-images", "4", "--seed", "1"];
        train(folder, "other", &[&SHORT[..], &given, more].concat()).output().unwrap()
    };
    let text = stderr(&drawn(&[]));
    assert!(text.contains("drawn-00000.png was generated for another run"), "{text}");

    let says = |out: &str, more: &[&str], words: &str| {
        let output = train(folder, out, &[&SHORT[..], more].concat()).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words) && !text.contains("panicked"), "{text}");
    };
    fs::remove_file(own.join("2.png")).unwrap();
    says("run", &["--resume", "--prior-folder", &path, "--prior-images", "4"], "prior_photos");
    fs::write(own.join("2.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
    says("new", &["--prior-folder", &path], "2.png");
    says("new", &["--prior-images", "0"], "images is 0");
    says("new", &["--set", "prior.prompt=a [V] cat"], "do not show [V]");
    says("new", &["--set", "prior.weight=-1"], "weight is -1");
    says("new", &["--prior-preservation", "--set", "prior.steps=0"], "prior");
    assert!(!folder.join("new").exists());
}
