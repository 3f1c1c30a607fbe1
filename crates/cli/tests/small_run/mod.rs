//! A small run, and the program on it.
#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use golden::fixtures;
use image::RgbImage;

/// The program, which computes in one thread so that its results repeat to the last bit.
pub(crate) fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attndreambooth")).args(arguments).env("OMP_NUM_THREADS", "1").output().unwrap()
}

/// The same, which must succeed.
pub(crate) fn succeed(arguments: &[&str]) -> Output {
    let output = program(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    output
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The program refuses in one sentence that has these words.
pub(crate) fn refuses(arguments: &[&str], words: &str) {
    let output = program(arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(words) && !text.contains("panicked") && !text.contains("frame #"), "{text}");
}

pub(crate) fn model() -> String {
    fixtures().join("tiny-sd21").display().to_string()
}

/// Trains the run `folder`/`name` for a few steps of each stage, on photos beside it. Returns its path.
pub(crate) fn train(folder: &Path, name: &str, more: &[&str]) -> String {
    let photos = folder.join("photos");
    fs::create_dir_all(&photos).unwrap();
    for n in 0..2u32 {
        let photo = RgbImage::from_fn(80, 64, |x, y| [(x * 3) as u8, (y * 4 + n * 50) as u8, (x ^ y) as u8].into());
        photo.save(photos.join(format!("{n}.png"))).unwrap();
    }
    let (photos, run, model) = (photos.display().to_string(), folder.join(name).display().to_string(), model());
    let small = "train --device cpu --category ball --batch-size 2 --resolution 64 --set embedding.steps=4 --set \
                 embedding.learning_rate=1e-2 --set cross_attention.steps=3 --set cross_attention.learning_rate=1e-2 \
                 --set unet.steps=3 --set unet.learning_rate=1e-3 --set validation.steps=2";
    let paths = ["--model", &model, "--concept", &photos, "--out", &run];
    succeed(&small.split_whitespace().chain(paths).chain(more.iter().copied()).collect::<Vec<_>>());
    run
}

/// The largest difference between two pictures of one size, in levels of 255.
pub(crate) fn difference(a: &Path, b: &Path) -> u8 {
    let [a, b] = [a, b].map(|path| image::open(path).unwrap().into_rgb8());
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}
