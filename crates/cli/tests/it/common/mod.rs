//! The program as a user starts it, and a small run.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses some of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use golden::fixtures;

/// What a run is for.
pub(crate) const CHANGED: [&str; 2] = ["learned_embeds.safetensors", "unet/diffusion_pytorch_model.safetensors"];

pub(crate) fn photos(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for n in 0..3u32 {
        let photo =
            image::RgbImage::from_fn(80 + n, 64, |x, y| [(x * 3) as u8, (y * 4 + n * 50) as u8, (x ^ y) as u8].into());
        photo.save(folder.join(format!("{n}.png"))).unwrap();
    }
    fs::write(folder.join("notes.txt"), "not a photo").unwrap();
}

/// All files below a folder with their contents, in order of their paths.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| match path.is_dir() {
        true => contents(&path),
        false => [(path.clone(), fs::read(&path).unwrap())].into(),
    });
    files.collect()
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn model() -> String {
    fixtures().join("tiny-sd21").display().to_string()
}

/// A run `folder`/`out` on `folder`/photos, in six steps a stage; what is given later wins.
pub(crate) fn train(folder: &Path, out: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attndreambooth"));
    command
        .args([
            "train",
            "--device",
            "cpu",
            "--category",
            "cat",
            "--batch-size",
            "2",
            "--resolution",
            "64",
            "--results",
            "none",
        ])
        .args([
            "--set",
            "phases.embedding.steps=6",
            "--set",
            "phases.cross_attention.steps=6",
            "--set",
            "phases.unet.steps=6",
        ])
        .args(["--set", "validation.steps=2", "--checkpoint-every", "2", "--validate-every", "4"])
        .arg("--model")
        .arg(model())
        .arg("--concept")
        .arg(folder.join("photos"))
        .arg("--out")
        .arg(folder.join(out))
        .args(more)
        .env("OMP_NUM_THREADS", "1")
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .stderr(Stdio::piped());
    command
}

/// A finished run of a ball in few steps, which change much, on photos of its own. Returns its path.
pub(crate) fn trained(folder: &Path, out: &str, more: &[&str]) -> String {
    photos(&folder.join("photos"));
    let much = "--category ball --checkpoint-every 100 --validate-every 0 --set phases.embedding.steps=4 --set \
                phases.embedding.learning_rate=1e-2 --set phases.cross_attention.steps=3 --set phases.cross_attention.learning_rate=1e-2 \
                --set phases.unet.steps=3 --set phases.unet.learning_rate=1e-3";
    let arguments: Vec<&str> = much.split_whitespace().chain(more.iter().copied()).collect();
    let output = train(folder, out, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    folder.join(out).display().to_string()
}

/// The program, which computes in one thread so that its results repeat to the last bit.
pub(crate) fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap()
}

/// The same, which must succeed.
pub(crate) fn succeed(arguments: &[&str]) -> Output {
    let output = program(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    output
}

/// The program refuses in one sentence that has these words.
pub(crate) fn refuses(arguments: &[&str], words: &str) {
    let output = program(arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(words) && !text.contains("panicked") && !text.contains("frame #"), "{text}");
    let parts: Vec<&str> = text.split(": ").map(str::trim).collect();
    assert!(parts.windows(2).all(|pair| pair[0] != pair[1]), "a reason stands there twice: {text}");
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The largest difference between two images of one size, in levels of 255.
pub(crate) fn difference(a: &Path, b: &Path) -> u8 {
    let [a, b] = [a, b].map(|path| image::open(path).unwrap().into_rgb8());
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// Waits until the run has logged `steps` steps, or has ended.
pub(crate) fn wait_for_steps(child: &mut Child, log: &Path, steps: usize) {
    while child.try_wait().unwrap().is_none() {
        if fs::read_to_string(log).is_ok_and(|text| text.lines().count() >= steps) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn assert_same_result(folder: &Path, a: &str, b: &str) {
    for file in CHANGED {
        let [a, b] = [a, b].map(|run| fs::read(folder.join(run).join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
}
