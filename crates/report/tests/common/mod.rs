//! Run folders with everything in them.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;
use runs::{Entry, Log, RunFolder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A prompt that wants to be more than text.
pub(crate) const HOSTILE: &str = r#"a [V] dog </script><img src="x" onerror="alert('1')">&amp;"#;

/// A picture that no other `number` has.
pub(crate) fn picture(path: &Path, side: u32, number: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x: u32, y: u32| [(x * 4) as u8, (y * 4) as u8, number.wrapping_mul(37)].into();
    RgbImage::from_fn(side, side, pixel).save(path).unwrap();
}

fn write(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}

/// A run of 30 steps with its configuration, photos, log and nothing else.
pub(crate) fn bare_run(parent: &Path, name: &str, learning_rate: f64) -> PathBuf {
    let (folder, photos) = (parent.join(name), parent.join("my_dog"));
    picture(&photos.join("0.png"), 48, 0);
    let run = RunFolder::create(&folder).unwrap();
    let stage = |learning_rate: f64| json!({"steps": 15, "learning_rate": learning_rate, "batch_size": 2});
    let config = json!({
        "model": "models/tiny", "concept": photos, "category": "dog", "seed": 3, "prompt": HOSTILE,
        "embedding": stage(1e-3), "unet": stage(learning_rate), "validation": {"steps": 4, "prompts": [HOSTILE]},
    });
    let digest = Sha256::digest(fs::read(photos.join("0.png")).unwrap());
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let record = json!({"config": config, "photos": [{"file": "0.png", "sha256": sha256}]});
    run.write_config(&record, [("libtorch", "2.11.0")]).unwrap();
    let mut log = Log::open(&folder, 0).unwrap();
    for step in 1..=30u32 {
        let stage = if step <= 15 { "embedding" } else { "unet" };
        let loss = 1.0 / f64::from(step);
        let values = [("diffusion_loss", loss), ("attention_loss", loss * loss), ("seconds", 2.5)];
        log.append(&Entry::now(u64::from(step), stage, values)).unwrap();
    }
    folder
}

/// The same with everything that commands may have added; the pictures of `number` runs differ.
pub(crate) fn full_run(parent: &Path, name: &str, learning_rate: f64, number: u8) -> PathBuf {
    let folder = bare_run(parent, name, learning_rate);
    for file in ["contact_sheet.png", "samples.png", "validation/1-embedding-00010.png", "validation/2-unet-00010.png"]
    {
        picture(&folder.join(file), 64, number);
    }
    comparison(&folder, number);
    evaluation(&folder, number);
    attend(&folder);
    inspect(&folder);
    folder
}

fn comparison(folder: &Path, number: u8) {
    let folder = folder.join("comparison");
    picture(&folder.join("base-00.png"), 64, 99);
    picture(&folder.join("run-00.png"), 64, number);
    let rows = json!([{"prompt": HOSTILE, "images": ["base-00.png", "run-00.png"]}]);
    write(&folder.join("comparison.json"), &json!({"columns": ["base model", "personalised"], "rows": rows}));
}

fn evaluation(folder: &Path, number: u8) {
    let folder = folder.join("evaluation/three");
    let mean = 0.5 + f64::from(number) / 100.0;
    let estimate = json!({"mean": mean, "low": mean - 0.1, "high": mean + 0.1});
    let metrics = json!({"clip_i": estimate, "clip_t": estimate, "clip_t_without_category": estimate});
    let prompts = ["a {} on the beach", "a red {}", "a {} </script><b>"].iter().enumerate().map(|(i, prompt)| {
        let images = (0..2).map(|image| {
            let file = format!("{i:03}-{image:02}.png");
            picture(&folder.join("subject").join(&file), 64, number.wrapping_mul(16) + (i * 2 + image) as u8);
            json!({"file": file, "seed": 1000 + i * 2 + image, "clip_i": mean})
        });
        json!({"prompt": prompt, "kind": "any", "mean": metrics, "images": images.collect::<Vec<_>>()})
    });
    let scores =
        json!({"mean": metrics, "kinds": [{"kind": "any", "mean": metrics}], "prompts": prompts.collect::<Vec<_>>()});
    let variants = json!([{"name": "subject", "folder": "subject", "scores": scores}]);
    write(
        &folder.join("scores.json"),
        &json!({"clip": {"name": "tiny-clip"}, "images_per_prompt": 2, "variants": variants}),
    );
}

fn attend(folder: &Path) {
    let folder = folder.join("attend");
    let rows = ["base model", "after stage 1", "after stage 2"].iter().enumerate().map(|(i, title)| {
        let file = |what: &str, number: usize| {
            let name = format!("{i}-{what}.png");
            picture(&folder.join(&name), 32, (i * 10 + number) as u8);
            name
        };
        let overlays = json!([
            {"word": "[V]", "file": file("v", 1), "mean": 0.125},
            {"word": "dog", "file": file("dog", 2), "mean": 0.25},
        ]);
        json!({"title": title, "picture": file("picture", 0), "overlays": overlays})
    });
    let rows: Vec<Value> = rows.collect();
    write(&folder.join("attend.json"), &json!({"arguments": {"prompt": HOSTILE}, "rows": rows}));
}

fn inspect(folder: &Path) {
    let folder = folder.join("inspect");
    let pictures = ["before", "after"].map(|moment| {
        let file = format!("{moment}-seed0.png");
        picture(&folder.join(&file), 32, moment.len() as u8);
        json!({"file": file, "moment": moment, "seed": 0})
    });
    let token = json!({"token": "puppy</w>", "id": 5, "cosine": 0.61, "rank": 1});
    let vector = json!({"cosine": 0.87, "start_norm": 0.4, "norm": 0.5, "distance": 0.3, "nearest": [token]});
    write(&folder.join("inspect.json"), &json!({"vectors": [vector], "pictures": pictures}));
}
