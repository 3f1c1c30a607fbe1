//! Settings that give NaN or infinity end every command that generates images in an error, and leave no image.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{model, refuses, trained};
use golden::fixtures;

/// The PNG files below a folder.
fn images(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            let png = path.extension().is_some_and(|extension| extension == "png");
            if path.is_dir() { images(&path) } else { png.then(|| path.display().to_string()).into_iter().collect() }
        })
        .collect()
}

#[test]
fn no_command_writes_an_image_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), "run", &[]);
    let (model, clip) = (model(), fixtures().join("tiny-clip").display().to_string());
    let text = |out: &Path| out.display().to_string();
    let absurd = ["--device", "cpu", "--steps", "2", "--guidance-scale", "1e38"];
    let commands: [&[&str]; 5] = [
        &["generate", "--model", &model, "--prompt", "a cat"],
        &["generate", "--run", &run, "--prompt", "a [V] ball"],
        &["attend", "--run", &run, "--prompt", "a [V] ball"],
        &["inspect", "--run", &run],
        &["evaluate", "--run", &run, "--images", "1", "--clip", &clip],
    ];
    for (number, command) in commands.iter().enumerate() {
        let out = folder.path().join(format!("out-{number}"));
        let out_text = text(&out);
        let arguments = [*command, &absurd, &["--out", &out_text]].concat();
        refuses(&arguments, "cannot be generated: its latents are no longer finite from denoising step ");
        refuses(&arguments, "lower guidance_scale (--guidance-scale)");
        assert_eq!(images(&out), [""; 0], "{command:?}");
    }
}
