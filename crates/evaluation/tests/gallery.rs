//! Images are drawn once, and what does not belong in their folder is noticed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use evaluation::Gallery;
use golden::fixtures;
use prompts::{Plan, Prompt, PromptSet};
use runs::GalleryConfig;
use sampling::{Pipeline, Request, Settings};
use scheduler::SchedulerKind;
use serde_json::json;
use tch::{Device, Kind};

const SCHEDULER: SchedulerKind = SchedulerKind::DpmSolverPlusPlus;

fn pipeline() -> Pipeline {
    Pipeline::from_folder(&fixtures().join("tiny-sd21"), (Kind::Float, Device::Cpu)).unwrap()
}

fn config(pipeline: &Pipeline) -> GalleryConfig {
    let settings = Settings { steps: 1, height: 64, width: 64, ..pipeline.default_settings() };
    let details = json!({ "run": "none" });
    GalleryConfig { model: "tiny-sd21".to_owned(), details, settings, scheduler: SCHEDULER, dtype: "fp32".to_owned() }
}

fn plan(images: usize) -> Plan {
    let prompts = ["a {} on the beach", "a red {}"].map(|text| Prompt { text: text.to_owned(), kind: "x".to_owned() });
    let set =
        PromptSet { name: "two".to_owned(), source: String::new(), note: String::new(), prompts: prompts.to_vec() };
    Plan { prompts: set, images, seed: 0 }
}

/// Each file with its bytes and when it was written.
fn contents(folder: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let entry = |entry: fs::DirEntry| {
        let content = (fs::read(entry.path()).unwrap(), entry.metadata().unwrap().modified().unwrap());
        (entry.file_name().into_string().unwrap(), content)
    };
    fs::read_dir(folder).unwrap().map(Result::unwrap).map(entry).filter(|(name, _)| name.ends_with(".png")).collect()
}

fn says<T: std::fmt::Debug>(result: anyhow::Result<T>, words: &[&str]) {
    let error = format!("{:#}", result.unwrap_err());
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn only_what_is_missing_is_generated() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("evaluation/two/base");
    let pipeline = pipeline();
    let config = config(&pipeline);
    let open = |images| Gallery::open(&folder, plan(images).images("cat"), config.clone());
    let mut gallery = open(2).unwrap();
    assert_eq!(gallery.missing(), 4);
    assert!(!folder.exists(), "looking writes nothing");
    let mut steps = Vec::new();
    gallery
        .generate(&pipeline, 3, &mut |progress| steps.push((progress.batch, progress.batches, progress.step.done)))
        .unwrap();
    assert_eq!(steps, [(1, 2, 1), (2, 2, 1)]);
    let before = contents(&folder);
    assert_eq!(before.keys().collect::<Vec<_>>(), ["000-00.png", "000-01.png", "001-00.png", "001-01.png"]);

    // Each is the image that its text and seed make.
    let shot = &plan(2).images("cat")[3];
    assert_eq!(gallery.images()[3].seed, shot.seed);
    let settings = Settings { scheduler: Some(SCHEDULER), ..config.settings.clone() };
    let image = pipeline.generate(&[Request::new("a red cat", shot.seed)], &settings, &mut |_| {}).unwrap();
    let path = folder.join("001-01.png");
    let close = |a: &[u8], b: &[u8]| a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1);
    assert!(close(image::open(&path).unwrap().into_rgb8().as_raw(), image[0].as_raw()));
    let parameters = format!(
        "a red cat\nSteps: 1, Sampler: DPMSolverMultistepScheduler, CFG scale: 7.5, Seed: {}, Size: 64x64, Model: tiny-sd21",
        shot.seed
    );
    let texts = images::png_texts(&path).unwrap();
    assert_eq!(texts[0], ("parameters".to_owned(), parameters));
    assert!(texts[1].1.contains("trainedAlgorithmicMedia"));

    // Two are gone, one of them by half; more images are asked for.
    fs::remove_file(folder.join("000-01.png")).unwrap();
    fs::write(&path, &before["001-01.png"].0[..200]).unwrap();
    let mut gallery = open(3).unwrap();
    assert_eq!(gallery.missing(), 4);
    assert_eq!(gallery.incomplete(), [path]);
    gallery.generate(&pipeline, 1, &mut |_| {}).unwrap();
    let after = contents(&folder);
    assert_eq!(after.len(), 6);
    for name in ["000-00.png", "001-00.png"] {
        assert_eq!(after[name], before[name], "{name} was not touched");
    }
    let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_rgb8();
    assert!(close(pixels(&after["001-01.png"].0).as_raw(), pixels(&before["001-01.png"].0).as_raw()));
    assert_eq!(open(3).unwrap().missing(), 0);
}

#[test]
fn what_does_not_belong_there_is_noticed_and_left_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let pipeline = pipeline();
    let config = config(&pipeline);
    let open = |config: GalleryConfig| Gallery::open(folder, plan(1).images("cat"), config);
    open(config.clone()).unwrap().generate(&pipeline, 4, &mut |_| {}).unwrap();

    let settings = Settings { steps: 2, ..config.settings.clone() };
    says(open(GalleryConfig { settings, ..config.clone() }), &["settings.steps was 1, is 2", "--out"]);
    says(open(GalleryConfig { details: json!({ "run": "other" }), ..config.clone() }), &["details.run", "other"]);
    says(open(GalleryConfig { dtype: "bf16".to_owned(), ..config.clone() }), &["dtype", "bf16"]);
    says(Gallery::open(folder, plan(1).images("dog"), config.clone()), &["000-00.png shows", "cat", "dog"]);

    let path = folder.join("001-00.png");
    let whole = fs::read(&path).unwrap();
    for foreign in ["a note", "\u{1}"] {
        fs::write(&path, foreign).unwrap();
        says(open(config.clone()), &["001-00.png", "was not generated by it"]);
        assert_eq!(fs::read(&path).unwrap(), foreign.as_bytes());
    }
    image::RgbImage::new(8, 8).save(&path).unwrap();
    says(open(config.clone()), &["001-00.png", "was not generated by it"]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    says(open(config.clone()), &["001-00.png"]);
    fs::remove_dir(&path).unwrap();
    for cut in [0, 4, 60, whole.len() - 5] {
        fs::write(&path, &whole[..cut]).unwrap();
        let gallery = open(config.clone()).unwrap();
        assert_eq!((gallery.missing(), gallery.incomplete().len()), (1, 1), "cut to {cut} bytes");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(config.clone()).unwrap().missing(), 0);
    fs::write(folder.join("recipe.json"), "{").unwrap();
    says(open(config), &["recipe.json is not how the images beside it were generated"]);
}

#[test]
fn two_do_not_generate_into_a_folder_at_once() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let pipeline = pipeline();
    let config = config(&pipeline);
    let open = |config: &GalleryConfig| Gallery::open(folder, plan(1).images("cat"), config.clone()).unwrap();
    let other = GalleryConfig { settings: Settings { steps: 2, ..config.settings.clone() }, ..config.clone() };
    // All look before the first one draws.
    let [mut first, mut second, mut third] = [&config, &config, &other].map(open);
    let elsewhere = runs::Lock::take(folder).unwrap();
    says(first.generate(&pipeline, 1, &mut |_| {}), &["is in use by process", "--out"]);
    assert!(contents(folder).is_empty() && !folder.join("recipe.json").exists());
    drop(elsewhere);
    first.generate(&pipeline, 1, &mut |_| {}).unwrap();
    let drawn = contents(folder);
    second.generate(&pipeline, 1, &mut |_| panic!("all has been generated")).unwrap();
    says(third.generate(&pipeline, 1, &mut |_| {}), &["settings.steps was 1, is 2"]);
    assert!(drawn.len() == 2 && contents(folder) == drawn);
}

#[test]
fn nothing_is_written_where_the_model_cannot_follow() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("new");
    let pipeline = pipeline();
    let config = config(&pipeline);
    let settings = Settings { height: 33, ..config.settings.clone() };
    let mut gallery =
        Gallery::open(&folder, plan(1).images("cat"), GalleryConfig { settings, ..config.clone() }).unwrap();
    says(gallery.generate(&pipeline, 1, &mut |_| {}), &["height 33"]);
    let mut gallery = Gallery::open(&folder, plan(1).images("[V] cat"), config).unwrap();
    says(gallery.generate(&pipeline, 1, &mut |_| {}), &["has learned no subject"]);
    assert!(!folder.exists());
}
