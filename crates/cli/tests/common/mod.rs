//! A small run of `train` as a user starts it.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
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
        .args(["--set", "embedding.steps=6", "--set", "cross_attention.steps=6", "--set", "unet.steps=6"])
        .args(["--set", "validation.steps=2", "--checkpoint-every", "2", "--validate-every", "4"])
        .arg("--model")
        .arg(fixtures().join("tiny-sd21"))
        .arg("--concept")
        .arg(folder.join("photos"))
        .arg("--out")
        .arg(folder.join(out))
        .args(more)
        .env("OMP_NUM_THREADS", "1")
        .stderr(Stdio::piped());
    command
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
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
