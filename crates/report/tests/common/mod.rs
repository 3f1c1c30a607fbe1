//! Run folders with everything in them.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;
use options::{GenerationSettings, SchedulerKind};
use runs::{
    Attention, AttentionArguments, AttentionRow, BeforeOrAfter, ClipName, Comparison, ComparisonRow, Entry, Evaluation,
    GalleryConfig, HeatMapSettings, ImageEntry, ImageScores, InspectedVector, Inspection, InspectionImage, KindScores,
    Log, Metrics, ModelFingerprint, NearToken, Overlay, PromptScores, RunFolder, RunRecord, SavedPhoto, Scores,
    TrainConfig, Variant, Versions,
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use statistics::{Bootstrap, Compared, Estimate, Verdict};
use tables::{Against, Cost, KindRow, Margin, Row, Table, TablePlan, cells};

/// A prompt that wants to be more than text.
pub(crate) const HOSTILE: &str = r#"a [V] dog </script><img src="x" onerror="alert('1')">&amp;"#;

/// An image that no other `number` has.
pub(crate) fn image(path: &Path, side: u32, number: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x: u32, y: u32| [(x * 4) as u8, (y * 4) as u8, number.wrapping_mul(37)].into();
    RgbImage::from_fn(side, side, pixel).save(path).unwrap();
}

fn estimate(mean: f64) -> Estimate {
    Estimate { mean, low: mean - 0.1, high: mean + 0.1 }
}

/// A configuration of two phases of 15 steps.
pub(crate) fn config(photos: &Path, learning_rate: f64) -> TrainConfig {
    let mut config = TrainConfig {
        model: "models/tiny".into(),
        concept: photos.to_owned(),
        category: "dog".into(),
        seed: 3,
        prompt: HOSTILE.into(),
        ..TrainConfig::paper()
    };
    for (phase, (learning_rate, steps)) in config.phases.values_mut().zip([(1e-3, 15), (1e-3, 0), (learning_rate, 15)])
    {
        (phase.learning_rate, phase.steps, phase.batch_size) = (learning_rate, steps, 2);
    }
    config
}

/// A run of 30 steps with its configuration, photos, log and nothing else.
pub(crate) fn bare_run(parent: &Path, name: &str, learning_rate: f64) -> PathBuf {
    run_of(parent, name, |photos| config(photos, learning_rate))
}

/// The same with any configuration, which may depend on the folder of its photos.
pub(crate) fn run_of(parent: &Path, name: &str, config: impl FnOnce(&Path) -> TrainConfig) -> PathBuf {
    let (folder, photos) = (parent.join(name), parent.join("my_dog"));
    image(&photos.join("0.png"), 48, 0);
    let sha256 = hex::encode(Sha256::digest(fs::read(photos.join("0.png")).unwrap()));
    let photo = SavedPhoto { file: "0.png".into(), sha256, ..SavedPhoto::default() };
    let record = RunRecord { config: config(&photos), photos: vec![photo], ..RunRecord::default() };
    RunFolder::create(&folder).unwrap().write_record(&record, "2.11.0", "Cpu").unwrap();
    let mut log = Log::open(&folder, 0).unwrap();
    for step in 1..=30u32 {
        let phase = if step <= 15 { "embedding" } else { "unet" };
        let loss = 1.0 / f64::from(step);
        let values = [("diffusion_loss", loss), ("attention_loss", loss * loss), ("seconds", 2.5)];
        log.append(&Entry::now(u64::from(step), phase, values)).unwrap();
    }
    folder
}

/// The same with everything that commands may have added; the images of `number` runs differ.
pub(crate) fn full_run(parent: &Path, name: &str, learning_rate: f64, number: u8) -> PathBuf {
    let folder = bare_run(parent, name, learning_rate);
    for file in ["contact_sheet.png", "samples.png", "validation/1-embedding-00010.png", "validation/2-unet-00010.png"]
    {
        image(&folder.join(file), 64, number);
    }
    comparison(&folder, number);
    evaluation(&folder, number);
    attend(&folder);
    inspect(&folder);
    folder
}

fn comparison(folder: &Path, number: u8) {
    let folder = folder.join("comparison");
    image(&folder.join("base-00.png"), 64, 99);
    image(&folder.join("run-00.png"), 64, number);
    let row = ComparisonRow {
        prompt: HOSTILE.into(),
        seed: None,
        images: ["base-00.png", "run-00.png"].map(PathBuf::from).to_vec(),
    };
    compared(&folder, vec![row]);
}

/// Writes the record of a comparison with the base model.
pub(crate) fn compared(folder: &Path, rows: Vec<ComparisonRow>) {
    fs::create_dir_all(folder).unwrap();
    let columns = ["base model", "personalised"].map(str::to_owned).to_vec();
    Comparison { columns, rows }.write(folder).unwrap();
}

fn settings() -> GenerationSettings {
    GenerationSettings { steps: 2, guidance_scale: 7.5, height: 64, width: 64, scheduler: None, eta: None }
}

fn evaluation(folder: &Path, number: u8) {
    let folder = folder.join("evaluation/three");
    let mean = 0.5 + f64::from(number) / 100.0;
    let prompts = ["a {} on the beach", "a red {}", "a {} </script><b>"].iter().enumerate().map(|(i, prompt)| {
        let images = (0..2).map(|at| {
            let file = format!("{i:03}-{at:02}.png");
            image(&folder.join("subject").join(&file), 64, number.wrapping_mul(16) + (i * 2 + at) as u8);
            (file, 1000 + i as u64 * 2 + at as u64)
        });
        ((*prompt).to_owned(), images.collect())
    });
    evaluated(&folder, Path::new("subject"), mean, prompts.collect());
}

/// Writes the scores of images of prompts, by file and seed.
pub(crate) fn evaluated(set: &Path, folder: &Path, mean: f64, prompts: Vec<(String, Vec<(String, u64)>)>) {
    let metrics = Metrics {
        clip_i: estimate(mean),
        clip_t: estimate(mean),
        clip_t_without_category: estimate(mean),
        clip_i_masked: None,
        dino_i: None,
        obeyed: None,
    };
    let scores = Metrics {
        clip_i: mean,
        clip_t: mean,
        clip_t_without_category: mean,
        clip_i_masked: None,
        dino_i: None,
        obeyed: None,
    };
    let prompts: Vec<_> = prompts
        .into_iter()
        .map(|(prompt, images)| PromptScores {
            prompt,
            kind: "any".into(),
            mean: metrics,
            images: images.into_iter().map(|(file, seed)| ImageScores { file, seed, scores }).collect(),
        })
        .collect();
    let kinds = vec![KindScores { kind: "any".into(), prompts: prompts.len(), mean: metrics }];
    let config = GalleryConfig {
        model: "run".into(),
        details: Value::Null,
        settings: settings(),
        scheduler: SchedulerKind::Ddim,
        dtype: "fp32".into(),
    };
    let scores = Scores { mean: metrics, kinds, prompts };
    let variant = Variant { name: Variant::SUBJECT.into(), folder: folder.to_owned(), config, scores };
    let evaluation = Evaluation {
        clip: ClipName { name: "tiny-clip".into(), folder: "clip".into() },
        dino: None,
        reader: None,
        prompt_set: "three".into(),
        images_per_prompt: 2,
        seed: 0,
        category: "dog".into(),
        photos: Vec::new(),
        bootstrap: Bootstrap::default(),
        versions: Versions::new(),
        variants: vec![variant],
    };
    fs::create_dir_all(set).unwrap();
    evaluation.write(set).unwrap();
}

fn attend(folder: &Path) {
    let folder = folder.join("attend");
    let rows =
        ["base model", "after stage 1", "after stage 2"].iter().enumerate().map(|(i, title)| {
            let file = |what: &str, number: usize| {
                let name = format!("{i}-{what}.png");
                image(&folder.join(&name), 32, (i * 10 + number) as u8);
                PathBuf::from(name)
            };
            let overlays =
                [("[V]", "v", 0.125), ("dog", "dog", 0.25)].iter().enumerate().map(|(at, (word, name, mean))| {
                    Overlay { word: (*word).to_owned(), file: file(name, at + 1), mean: *mean, max: 2.0 * mean }
                });
            let overlays = overlays.collect();
            row(title, file("picture", 0), overlays)
        });
    let rows = rows.collect();
    attended(&folder, rows);
}

/// A row of attention maps.
pub(crate) fn row(title: &str, image: PathBuf, overlays: Vec<Overlay>) -> AttentionRow {
    AttentionRow { name: title.replace(' ', "-"), title: title.to_owned(), image, passes: 2, overlays }
}

/// Writes the record of attention maps.
pub(crate) fn attended(folder: &Path, rows: Vec<AttentionRow>) {
    let attention = Attention {
        arguments: AttentionArguments { prompt: HOSTILE.into(), others: Map::new() },
        settings: settings(),
        scheduler: "DDIMScheduler".into(),
        heat_maps: HeatMapSettings { factors: vec![1], mid: false, normalize: false },
        device: "Cpu".into(),
        dtype: "fp32".into(),
        versions: Versions::new(),
        seconds: 1.0,
        tokens: Vec::new(),
        words: Vec::new(),
        rows,
    };
    fs::create_dir_all(folder).unwrap();
    attention.write(folder).unwrap();
}

fn inspect(folder: &Path) {
    let folder = folder.join("inspect");
    let images = [BeforeOrAfter::Before, BeforeOrAfter::After].map(|moment| {
        let file = format!("{}-seed0.png", moment.name());
        image(&folder.join(&file), 32, moment.name().len() as u8);
        InspectionImage { file: file.into(), moment, seed: 0 }
    });
    inspected(&folder, images.to_vec());
}

/// Writes the record of an embedding.
pub(crate) fn inspected(folder: &Path, images: Vec<InspectionImage>) {
    let token = NearToken { token: "puppy</w>".into(), id: 5, cosine: 0.61, rank: 1 };
    let vector = InspectedVector {
        cosine: 0.87,
        start_norm: 0.4,
        norm: 0.5,
        distance: 0.3,
        nearest: vec![token],
        category: Vec::new(),
    };
    let inspection = Inspection {
        arguments: Map::new(),
        placeholder: "<new>".into(),
        category: "dog".into(),
        vectors: vec![vector],
        settings: settings(),
        scheduler: "DDIMScheduler".into(),
        device: "Cpu".into(),
        dtype: "fp32".into(),
        versions: Versions::new(),
        images,
    };
    fs::create_dir_all(folder).unwrap();
    inspection.write(folder).unwrap();
}

/// Writes a log of generated images, by file and prompt, all of seed 0.
pub(crate) fn logged(folder: &Path, images: &[(&str, &str)]) {
    fs::create_dir_all(folder).unwrap();
    let line = |(file, prompt): &(&str, &str)| {
        let entry = ImageEntry { file: (*file).into(), prompt: (*prompt).into(), ..ImageEntry::default() };
        serde_json::to_string(&entry).unwrap() + "\n"
    };
    fs::write(folder.join("generate.jsonl"), images.iter().map(line).collect::<String>()).unwrap();
}

/// A table of two methods, the second with a hostile name, and one subject, with its figures in `parent`.
pub(crate) fn table(parent: &Path) -> (Table, TablePlan) {
    let path = parent.join("plan.toml");
    let plan = r#"
name = "two"
model = "model"
images = 1
reference = "ours"
subjects = [{ name = "rex", photos = "photos", category = "dog" }]
methods = [{ name = "ours" }, { name = "<b>TI & \"others\"", method = "textual-inversion" }]
"#;
    fs::write(&path, plan).unwrap();
    let plan = TablePlan::read(&path).unwrap();
    let row = |(number, name): (usize, &str)| {
        let [identity, text] = [0.3 + 0.1 * number as f64, 0.6 - 0.1 * number as f64].map(estimate);
        let obeyed = (number > 0).then_some(text);
        let kinds = ["place", "style"].map(|kind| KindRow { kind: kind.to_owned(), identity, text, obeyed });
        let compared = |mean| Compared {
            difference: estimate(mean),
            p_value: 0.01,
            adjusted_p_value: 0.02,
            adjusted: estimate(mean),
        };
        Row {
            name: name.to_owned(),
            identity,
            dino: None,
            text,
            obeyed,
            kinds: if number == 0 { Vec::new() } else { kinds.to_vec() },
            against: (number == 3).then(|| Against {
                identity: compared(-0.2),
                identity_verdict: Verdict::DoesNotHold,
                text: compared(0.2),
                text_verdict: Verdict::Holds,
            }),
            cost: (number > 1).then(|| Cost { train_seconds: 60.0, steps: 30, ..Cost::default() }),
            generate_seconds: 2.0,
            embedding_cosine: (number == 3).then_some(0.5),
        }
    };
    let names = [tables::REAL, tables::BASE, "ours", &plan.methods[1].name];
    let table = Table {
        name: plan.name.clone(),
        judge: ModelFingerprint { name: "judge".to_owned(), ..ModelFingerprint::default() },
        prompt_set: "ours24".to_owned(),
        prompts: 24,
        images: 1,
        seeds: vec![0],
        subjects: vec!["rex".to_owned()],
        missing: Vec::new(),
        left_out: Vec::new(),
        reference: plan.reference.clone(),
        margin: Margin::default(),
        bootstrap: Bootstrap::default(),
        rows: names.into_iter().enumerate().map(row).collect(),
    };
    for (number, cell) in cells(&plan).iter().enumerate().skip(1) {
        let figures = cell.folder(parent).join("figures");
        for file in ["000.png", "003.png", "attention/grid.png", "embedding/grid.png"] {
            image(&figures.join(file), 64, number as u8);
        }
    }
    (table, plan)
}
