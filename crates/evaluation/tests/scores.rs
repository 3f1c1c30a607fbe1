//! Scores equal those of transformers and numpy, and files that cannot be judged are named.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use evaluation::{
    DinoFeatures, FeatureExtractor, GeneratedImage, ImageFile, Masks, Reference, evaluate_images, evaluate_photos,
};
use golden::fixtures;
use options::{GenerationSettings, SchedulerKind};
use prompts::{Prompt, PromptSet};
use runs::{Evaluation, GalleryConfig, ImageScores, Metrics, Scores, Variant};
use serde_json::Value;
use statistics::Bootstrap;
use tch::Device;

fn extractor() -> FeatureExtractor {
    FeatureExtractor::open(&fixtures().join("tiny-clip"), Device::Cpu).unwrap()
}

fn goldens() -> Value {
    serde_json::from_slice(&fs::read(fixtures().join("evaluation/scores.json")).unwrap()).unwrap()
}

fn files(kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(fixtures().join("evaluation").join(kind)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn drawn() -> Vec<GeneratedImage> {
    let drawn = |(index, path)| GeneratedImage { path, prompt: index / 2, seed: index as u64 };
    files("images").into_iter().enumerate().map(drawn).collect()
}

fn prompts() -> PromptSet {
    let texts: Vec<String> = serde_json::from_value(goldens()["prompts"].clone()).unwrap();
    let prompts =
        texts.into_iter().enumerate().map(|(i, text)| Prompt { text, kind: ["place", "style"][i % 2].to_owned() });
    PromptSet { name: "golden".to_owned(), source: String::new(), note: String::new(), prompts: prompts.collect() }
}

fn masks(root: &Path) -> Masks {
    Masks { photos: root.join("masks/photos"), images: root.join("masks/images"), background: [128; 3] }
}

fn evaluate(extractor: &FeatureExtractor, drawn: &[GeneratedImage], masks: Option<Masks>) -> anyhow::Result<Scores> {
    let (photos, prompts) = (files("photos"), prompts());
    let reference = Reference { photos: &photos, category: "stuffed animal", prompts: &prompts, masks };
    evaluate_images(extractor, drawn, &reference, &Bootstrap::default(), &mut |_| {})
}

fn images(scores: &Scores) -> Vec<&ImageScores> {
    scores.prompts.iter().flat_map(|prompt| &prompt.images).collect()
}

#[test]
fn scores_equal_pythons() {
    let masks = masks(&fixtures().join("evaluation"));
    let scores = evaluate(&extractor(), &drawn(), Some(masks)).unwrap();
    let golden = goldens();
    type Metric = fn(&Metrics<f64>) -> f64;
    let metrics: [(&str, Metric); 4] = [
        ("clip_i", |m| m.clip_i),
        ("clip_t", |m| m.clip_t),
        ("clip_t_without_category", |m| m.clip_t_without_category),
        ("clip_i_masked", |m| m.clip_i_masked.unwrap()),
    ];
    for (name, metric) in metrics {
        let expected: Vec<f64> = serde_json::from_value(golden[name].clone()).unwrap();
        assert_eq!(images(&scores).len(), expected.len());
        for (image, expected) in images(&scores).iter().zip(expected) {
            let score = metric(&image.scores);
            assert!((score - expected).abs() < 1e-5, "{name} of {}: {score}, not {expected}", image.file);
        }
    }
}

#[test]
fn textual_inversions_preparation_is_pythons() {
    let scores = evaluate(&extractor().as_textual_inversion(), &drawn(), None).unwrap();
    let expected: Vec<f64> = serde_json::from_value(goldens()["clip_i_textual_inversion"].clone()).unwrap();
    for (image, expected) in images(&scores).iter().zip(&expected) {
        let score = image.scores.clip_i;
        assert!((score - expected).abs() < 1e-5, "CLIP-I of {}: {score}, not {expected}", image.file);
    }
    assert_ne!(goldens()["clip_i"], goldens()["clip_i_textual_inversion"]);
}

/// DINO's cosines by its own features, which are compared with transformers' where they are made.
#[test]
fn a_dino_scores_beside_clip() {
    let dino = || DinoFeatures::open(&fixtures().join("tiny-dino"), Device::Cpu).unwrap();
    let scores = evaluate(&extractor().with_dino(dino()), &drawn(), None).unwrap();
    let (model, _) = dino::ViT::from_folder(&fixtures().join("tiny-dino"), (tch::Kind::Float, Device::Cpu)).unwrap();
    let processor = dino::image_processor(&fixtures().join("tiny-dino")).unwrap();
    let feature = |path: &PathBuf| {
        let image = image::open(path).unwrap().into_rgb8();
        let pixels = processor.process_rgb8(&image, image.height().into(), image.width().into()).unwrap();
        let feature = model.features(&pixels.unsqueeze(0)).unwrap().squeeze_dim(0);
        &feature / feature.square().sum(tch::Kind::Float).sqrt()
    };
    let photos: Vec<_> = files("photos").iter().map(feature).collect();
    for (image, path) in images(&scores).iter().zip(files("images")) {
        let own = feature(&path);
        let cosines = photos.iter().map(|photo| (&own * photo).sum(tch::Kind::Double).double_value(&[]));
        let expected = cosines.sum::<f64>() / photos.len() as f64;
        assert!((image.scores.dino_i.unwrap() - expected).abs() < 1e-5, "{}", image.file);
    }
    assert!(scores.mean.dino_i.is_some() && evaluate(&extractor(), &drawn(), None).unwrap().mean.dino_i.is_none());
    assert!(DinoFeatures::open(&fixtures().join("tiny-clip"), Device::Cpu).is_err());
}

/// A photo is compared with the others, and with itself where it is alone.
#[test]
fn photos_are_scored_against_each_other() {
    let (extractor, photos) = (extractor(), files("photos"));
    let captions = vec!["a photo of a toy".to_owned(); photos.len()];
    let scores = evaluate_photos(&extractor, &photos, &captions, &Bootstrap::default()).unwrap();
    let files: Vec<ImageFile> = photos.iter().map(ImageFile::new).collect();
    let features = extractor.images(&files).unwrap();
    let cosine = |i: i64, j: i64| (features.get(i) * features.get(j)).sum(tch::Kind::Double).double_value(&[]);
    let expected = [(0, 1, 2), (1, 0, 2), (2, 0, 1)].map(|(i, j, k)| f64::midpoint(cosine(i, j), cosine(i, k)));
    for (image, expected) in images(&scores).iter().zip(expected) {
        assert!((image.scores.clip_i - expected).abs() < 1e-6, "{}", image.file);
    }
    let alone = evaluate_photos(&extractor, &photos[..1], &captions[..1], &Bootstrap::default()).unwrap();
    assert_eq!(images(&alone)[0].scores.clip_i, 1.0);
    assert!(evaluate_photos(&extractor, &photos, &captions[..1], &Bootstrap::default()).is_err());
}

#[test]
fn means_are_of_images_then_of_prompts() {
    let mut drawn = drawn();
    drawn.pop();
    let scores = evaluate(&extractor(), &drawn, None).unwrap();
    assert!(scores.mean.clip_i_masked.is_none());
    let means: Vec<f64> = scores
        .prompts
        .iter()
        .map(|prompt| {
            let sum: f64 = prompt.images.iter().map(|image| image.scores.clip_t).sum();
            assert!((prompt.mean.clip_t.mean - sum / prompt.images.len() as f64).abs() < 1e-12);
            sum / prompt.images.len() as f64
        })
        .collect();
    assert!((scores.mean.clip_t.mean - means.iter().sum::<f64>() / 3.0).abs() < 1e-12);
    assert_eq!(
        scores.kinds.iter().map(|kind| (kind.kind.as_str(), kind.prompts)).collect::<Vec<_>>(),
        [("place", 2), ("style", 1)]
    );
    assert!((scores.kinds[0].mean.clip_t.mean - f64::midpoint(means[0], means[2])).abs() < 1e-12);
    assert_eq!(images(&scores)[3].file, "001-01.png");
    assert_eq!(images(&scores)[3].seed, 3);
}

#[test]
fn the_batch_size_does_not_matter_and_progress_is_told() {
    let whole = evaluate(&extractor(), &drawn(), None).unwrap();
    for size in [1, 4] {
        let extractor = extractor().with_batch_size(size);
        let scores = evaluate(&extractor, &drawn(), None).unwrap();
        for (a, b) in images(&whole).iter().zip(images(&scores)) {
            assert!(
                (a.scores.clip_i - b.scores.clip_i).abs() < 1e-6 && (a.scores.clip_t - b.scores.clip_t).abs() < 1e-6
            );
        }
        let (photos, prompts, mut told) = (files("photos"), prompts(), Vec::new());
        let reference = Reference { photos: &photos, category: "toy", prompts: &prompts, masks: None };
        evaluate_images(&extractor, &drawn(), &reference, &Bootstrap::default(), &mut |n| told.push(n)).unwrap();
        assert_eq!(told, if size == 1 { vec![1, 2, 3, 4, 5, 6] } else { vec![4, 6] });
    }
}

#[test]
fn an_image_compared_with_itself_has_one() {
    let extractor = extractor();
    let images: Vec<ImageFile> = files("photos").into_iter().map(ImageFile::new).collect();
    let features = extractor.images(&images).unwrap();
    let cosines = features.matmul(&features.tr());
    for i in 0..3 {
        assert!((cosines.double_value(&[i, i]) - 1.0).abs() < 1e-6);
    }
}

#[test]
fn a_record_comes_back_from_its_file() {
    let extractor = extractor();
    let masks = masks(&fixtures().join("evaluation"));
    let scores = evaluate(&extractor, &drawn(), Some(masks)).unwrap();
    let settings =
        GenerationSettings { steps: 2, guidance_scale: 7.5, height: 64, width: 64, scheduler: None, eta: None };
    let (scheduler, dtype) = (SchedulerKind::Ddim, "fp32".to_owned());
    let config = GalleryConfig { model: "tiny".to_owned(), details: Value::Null, settings, scheduler, dtype };
    let variant = |name: &str| Variant {
        name: name.to_owned(),
        folder: name.into(),
        config: config.clone(),
        scores: scores.clone(),
    };
    let record = Evaluation {
        clip: extractor.name().clone(),
        dino: None,
        reader: None,
        prompt_set: "golden".to_owned(),
        images_per_prompt: 2,
        seed: 0,
        category: "stuffed animal".to_owned(),
        photos: files("photos"),
        bootstrap: Bootstrap::default(),
        versions: [("evaluation".to_owned(), "0".to_owned())].into(),
        variants: vec![variant("subject"), variant("base")],
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.json");
    record.write(folder.path()).unwrap();
    assert_eq!(Evaluation::read(folder.path()).unwrap(), Some(record.clone()));
    let json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(json["variants"][0]["scores"]["prompts"][0]["images"][0]["clip_i"].is_f64());
}

fn says<T: std::fmt::Debug>(result: anyhow::Result<T>, words: &[&str]) {
    let error = format!("{:#}", result.unwrap_err());
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn what_cannot_be_judged_is_named() {
    let extractor = extractor();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let whole = fs::read(&drawn()[0].path).unwrap();
    fs::write(at("half.png"), &whole[..whole.len() / 2]).unwrap();
    let with = |path: PathBuf| {
        let mut drawn = drawn();
        drawn[4].path = path;
        drawn
    };
    says(evaluate(&extractor, &with(at("half.png")), None), &["half.png is damaged"]);
    says(evaluate(&extractor, &with(at("gone.png")), None), &["gone.png cannot be read"]);
    // The failure may come while the next batch is being prepared.
    says(evaluate(&extractor.with_batch_size(1), &with(at("half.png")), None), &["half.png is damaged"]);

    let extractor = self::extractor();
    says(evaluate(&extractor, &drawn()[..4], None), &["no images of prompt 3"]);
    let stray = GeneratedImage { prompt: 3, ..drawn()[0].clone() };
    says(evaluate(&extractor, &[drawn(), vec![stray]].concat(), None), &["000-00.png", "prompt 4", "3 prompts"]);
    let (prompts, none) = (prompts(), []);
    let reference = Reference { photos: &none, category: "toy", prompts: &prompts, masks: None };
    says(evaluate_images(&extractor, &drawn(), &reference, &Bootstrap::default(), &mut |_| {}), &["no photos"]);

    let masks = masks(folder.path());
    says(evaluate(&extractor, &drawn(), Some(masks.clone())), &["front.png has no mask", "masks/photos/front.png"]);
    for (kind, masks) in [("photos", &masks.photos), ("images", &masks.images)] {
        fs::create_dir_all(masks).unwrap();
        for path in files(&format!("masks/{kind}")) {
            fs::copy(&path, masks.join(path.file_name().unwrap())).unwrap();
        }
    }
    evaluate(&extractor, &drawn(), Some(masks.clone())).unwrap();
    image::GrayImage::new(48, 47).save(masks.images.join("001-00.png")).unwrap();
    says(evaluate(&extractor, &drawn(), Some(masks)), &["001-00.png has 48 x 47 pixels", "48 x 48"]);
}

#[test]
fn a_clip_folder_that_lacks_something_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |without: &str| {
        for path in fs::read_dir(fixtures().join("tiny-clip")).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        if !without.is_empty() {
            fs::remove_file(folder.path().join(without)).unwrap();
        }
    };
    let open = || FeatureExtractor::open(folder.path(), Device::Cpu);
    for (without, words) in [
        ("config.json", "config.json"),
        ("model.safetensors", "model.safetensors"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("merges.txt", "no usable tokenizer"),
    ] {
        copy(without);
        says(open(), &[words]);
    }
    copy("");
    let change = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(fixtures().join("tiny-clip").join(file)).unwrap();
        assert!(text.contains(from));
        fs::write(folder.path().join(file), text.replace(from, to)).unwrap();
    };
    change("config.json", "\"vision_config\"", "\"other_config\"");
    says(open(), &["lacks the image encoder"]);
    copy("");
    change("preprocessor_config.json", "\"height\": 32", "\"height\": 24");
    says(open(), &["[3, 24, 32]", "[3, 32, 32]"]);
    copy("");
    change("tokenizer_config.json", "77", "80");
    says(open(), &["texts of 80 tokens", "takes 77"]);
    copy("");
    let weights = weights::Archive::open(&fixtures().join("tiny-clip/model.safetensors")).unwrap().tensors().unwrap();
    let text_only = weights.iter().filter(|(name, _)| !name.starts_with("vision_model"));
    weights::save(&folder.path().join("model.safetensors"), text_only).unwrap();
    says(open(), &["lacks the image encoder"]);
}

#[test]
fn a_clip_that_gives_nan_gives_no_score() {
    let folder = fixtures().join("tiny-clip");
    let (model, parameters) = clip::ClipModel::from_folder(&folder, (tch::Kind::Float, Device::Cpu)).unwrap();
    let processor = clip::ImageProcessor::from_folder(&folder).unwrap();
    let tokenizer = tokenizer::Tokenizer::load(&folder).unwrap();
    let broken = parameters.iter().find(|(name, _)| *name == "visual_projection.weight").unwrap().1;
    let _ = tch::no_grad(|| broken.shallow_clone().fill_(f64::NAN));
    let extractor =
        FeatureExtractor::new(extractor().name().clone(), model, processor, tokenizer, Device::Cpu).unwrap();
    let error = evaluate(&extractor, &drawn(), None).unwrap_err().to_string();
    assert!(error.contains("features that are not finite") && error.contains("weights are damaged"), "{error}");
}
