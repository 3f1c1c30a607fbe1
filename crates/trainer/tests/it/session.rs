//! A whole run in its folder, as the command starts it.

use std::fs;
use std::path::{Path, PathBuf};

use golden::fixtures;
use runs::ConfigLayers;
use serde_json::json;
use tch::Device;
use trainer::{Event, Opening, Outcome, Session};
use weights::Archive;

use crate::common;

/// A model that learns, but of which no image is finite: its VAE's decoder gives NaN.
fn blind_model(folder: &Path) -> PathBuf {
    let (from, to) = (fixtures().join("tiny-sd21"), folder.join("model"));
    for component in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        fs::create_dir_all(to.join(component)).unwrap();
        for entry in fs::read_dir(from.join(component)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), to.join(component).join(entry.file_name())).unwrap();
        }
    }
    let vae = "vae/diffusion_pytorch_model.safetensors";
    let mut tensors = Archive::open(&from.join(vae)).unwrap().tensors().unwrap();
    let bias = tensors.get_mut("decoder.conv_out.bias").unwrap();
    *bias = bias.full_like(f64::NAN);
    weights::save(&to.join(vae), &tensors).unwrap();
    to
}

#[test]
fn what_is_only_looked_at_ends_no_run_and_photos_are_noted() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let (concept, out) = (folder.path().join("photos"), folder.path().join("run"));
    fs::create_dir(&concept).unwrap();
    for photo in common::photos() {
        photo.pixels.save(concept.join(&photo.path)).unwrap();
    }
    fs::write(concept.join("0.txt"), "a cat").unwrap();
    common::photos()[0].pixels.save(concept.join("0-mask.png")).unwrap();

    let mut layers = ConfigLayers::new(&common::config()).unwrap();
    layers.put("model", json!(blind_model(folder.path()))).unwrap();
    layers.put("concept", json!(concept)).unwrap();
    for (key, value) in [("every", "2"), ("steps", "2")] {
        layers.set(&format!("validation.{key}"), value).unwrap();
    }
    let session = Session::open(layers, &out, Device::Cpu, Opening::New).unwrap();
    let unused = "captions (0.txt) and masks (0-mask.png) are not used";
    assert!(session.notes()[0].starts_with(unused), "{:?}", session.notes());
    let mut notes = Vec::new();
    let outcome = session.run(&|| false, &mut |event| {
        if let Event::Note { text } = event {
            notes.push(text);
        }
    });
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    // At step 2 of 3 of each phase, and at the end.
    assert_eq!(notes.len(), 4);
    let (file, image) =
        ("validation/1-embedding-00002.png goes without one image", "\"a photo of a [V] cat\" (seed 0)");
    assert!([file, image, "VAE"].iter().all(|words| notes[0].contains(words)), "{}", notes[0]);
    assert!(notes[3].contains("samples.png"), "{}", notes[3]);
    assert!(!out.join("samples.png").exists() && !out.join("validation/1-embedding-00002.png").exists());
    assert!(out.join("unet/diffusion_pytorch_model.safetensors").exists());
}

#[test]
fn maps_of_the_subject_are_made_on_the_way_and_change_nothing() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let concept = folder.path().join("photos");
    fs::create_dir(&concept).unwrap();
    for photo in common::photos() {
        photo.pixels.save(concept.join(&photo.path)).unwrap();
    }
    let learned = |name: &str, attention: &str| {
        let out = folder.path().join(name);
        let mut layers = ConfigLayers::new(&common::config()).unwrap();
        layers.put("model", json!(fixtures().join("tiny-sd21"))).unwrap();
        layers.put("concept", json!(concept)).unwrap();
        for (key, value) in [("every", "2"), ("steps", "2"), ("attention", attention)] {
            layers.set(&format!("validation.{key}"), value).unwrap();
        }
        let session = Session::open(layers, &out, Device::Cpu, Opening::New).unwrap();
        assert_eq!(session.run(&|| false, &mut |_| {}).unwrap(), Outcome::Finished);
        let files = ["learned_embeds.safetensors", "validation/1-embedding-00002.png", "samples.png"];
        (runs::samples(&out).unwrap(), files.map(|file| fs::read(out.join(file)).unwrap()))
    };
    let ((without, expected), (with, found)) = (learned("without", "false"), learned("with", "true"));
    assert!(expected == found, "the run and its images are the same");
    assert!(without.iter().all(|sample| sample.attention.is_none()));
    // At step 2 of 3 of each phase.
    let maps: Vec<_> = with.iter().filter_map(|sample| sample.attention.as_ref()).collect();
    assert_eq!(maps.len(), 3);
    // The image, and it under the maps of [V] and of the class noun.
    let (map, sample) = (image::open(maps[0]).unwrap(), image::open(&with[0].path).unwrap());
    assert!(map.width() > 2 * sample.width() && map.height() == sample.height(), "{map:?}");
}
