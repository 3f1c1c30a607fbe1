//! A model that gives NaN ends every command that generates images in an error, and leaves no image.

use std::path::Path;

use golden::{copy_folder, fixtures};
use weights::Archive;

use crate::common::{refuses, text, trained};

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
    // It learns from photos, for its encoder is good.
    let broken = folder.path().join("model");
    copy_folder(&fixtures().join("tiny-sd21"), &broken);
    let vae = broken.join("vae/diffusion_pytorch_model.safetensors");
    let mut tensors = Archive::open(&vae).unwrap().tensors().unwrap();
    let bias = tensors.get_mut("decoder.conv_out.bias").unwrap();
    *bias = bias.full_like(f64::NAN);
    let whole = folder.path().join("vae.safetensors");
    weights::save(&whole, &tensors).unwrap();
    std::fs::rename(whole, vae).unwrap();
    let (model, clip) = (text(&broken), text(&fixtures().join("tiny-clip")));
    let run = trained(folder.path(), "run", &["--model", &model]);
    let few = ["--device", "cpu", "--steps", "2"];
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
        let arguments = [*command, &few, &["--out", &out_text]].concat();
        refuses(&arguments, "cannot be generated: ");
        refuses(&arguments, "VAE");
        assert_eq!(images(&out), [""; 0], "{command:?}");
    }
}
