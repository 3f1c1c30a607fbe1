//! Captions, masks and buckets: used when asked for, and to the bit without effect when not.

use std::fs;
use std::path::{Path, PathBuf};

use golden::fixtures;
use image::{GrayImage, Luma};
use methods::{Batch, LossTerm};
use photos::{Caption, Mask, Photo, PhotoFolder};
use runs::{Captions, ConfigLayers, Masks, Prior, TrainConfig};
use sampling::Pipeline;
use serde_json::json;
use tch::{Device, Kind, Tensor};
use trainer::{BatchIndex, Batches, Event, Opening, Outcome, PhotoBatches, Session, Trainer};

use crate::common::{self, config};

const TEXTS: [&str; 3] = ["a [V] cat on a beach, sunny", "outdoors, a red <new> cat", "[V] cat, sitting"];

/// The photos of the other tests, with captions, and with masks but for the last.
fn photos() -> Vec<Photo> {
    let mut photos = common::photos();
    for (n, photo) in photos.iter_mut().enumerate() {
        photo.caption = Some(Caption { path: format!("{n}.txt").into(), text: TEXTS[n].to_owned(), has_more: false });
        let (width, height) = photo.pixels.dimensions();
        let pixels = GrayImage::from_fn(width, height, |x, y| Luma([(x * 5 + y * n as u32) as u8]));
        photo.mask = (n < 2).then(|| Mask { path: format!("{n}-masklabel.png").into(), sha256: String::new(), pixels });
    }
    photos
}

fn start(config: TrainConfig, photos: Vec<Photo>) -> (Trainer, PhotoBatches) {
    tch::set_num_threads(1);
    let pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), (Kind::Float, Device::Cpu)).unwrap();
    let prior = if config.prior.is_some() { vec![common::photos()] } else { Vec::new() };
    let batches = PhotoBatches::new(&config, &pipeline, vec![photos], prior).unwrap();
    (Trainer::new(config, pipeline).unwrap(), batches)
}

fn at(step: usize) -> BatchIndex {
    BatchIndex { phase: 2, step, part: 0 }
}

fn losses(trainer: &Trainer, batch: &Batch) -> Vec<LossTerm> {
    let prompts: Vec<&str> = batch.prompts.iter().chain(&batch.class_prompts).map(String::as_str).collect();
    let hidden = trainer.pipeline.encode_prompts(&prompts).unwrap();
    trainer.losses(&trainer.config.phases[2], batch, &hidden).unwrap()
}

fn term(losses: &[LossTerm], name: &str) -> f64 {
    losses.iter().find(|term| term.name == name).unwrap().value.double_value(&[])
}

fn assert_same(a: &Batch, b: &Batch) {
    for (a, b) in [(&a.latents, &b.latents), (&a.noise, &b.noise), (&a.timesteps, &b.timesteps)] {
        assert!(a.equal(b));
    }
}

/// Puts photos into a folder.
fn save(folder: &Path, photos: &[Photo]) {
    fs::create_dir_all(folder).unwrap();
    for photo in photos {
        photo.pixels.save(folder.join(&photo.path)).unwrap();
    }
}

/// Puts captions and masks beside them.
fn save_beside(folder: &Path, photos: &[Photo]) {
    for photo in photos {
        let caption = photo.caption.as_ref().unwrap();
        fs::write(folder.join(&caption.path), &caption.text).unwrap();
        if let Some(mask) = &photo.mask {
            mask.pixels.save(folder.join(&mask.path)).unwrap();
        }
    }
}

#[test]
fn without_flags_a_folder_with_companions_gives_the_same_batches_and_losses() {
    let folder = tempfile::tempdir().unwrap();
    let [bare, full] = ["bare", "full"].map(|name| folder.path().join(name));
    save(&bare, &photos());
    save(&full, &photos());
    save_beside(&full, &photos());
    fs::write(full.join("0-condlabel.png"), fs::read(full.join("0.png")).unwrap()).unwrap();
    let [mut bare, mut full] = [bare, full].map(|folder| {
        let opened = PhotoFolder::open_with(folder, &config().photo_options()).unwrap();
        start(config(), opened.photos)
    });
    for step in 0..3 {
        let [a, b] = [&mut bare, &mut full].map(|(trainer, batches)| (trainer, batches.batch(at(step)).unwrap()));
        assert_same(&a.1, &b.1);
        assert_eq!((&a.1.prompts, a.1.mask.is_none()), (&b.1.prompts, b.1.mask.is_none()));
        let [a, b] = [a, b].map(|(trainer, batch)| losses(trainer, &batch));
        assert!(a.iter().zip(&b).all(|(a, b)| a.value.equal(&b.value)));
    }
}

#[test]
fn each_sample_has_its_photos_caption_and_else_the_batch_is_the_same() {
    let captions = TrainConfig { captions: Some(Captions::default()), ..config() };
    let (_, mut plain) = start(config(), common::photos());
    let (trainer, mut batches) = start(captions, photos());
    for step in 0..3 {
        let batch = batches.batch(at(step)).unwrap();
        assert_same(&batch, &plain.batch(at(step)).unwrap());
        let crops = batches.crops(at(step)).unwrap();
        let of = |photo: &Photo| photo.caption.as_ref().unwrap().text.replace("<new>", "[V]");
        assert_eq!(batch.prompts, crops.iter().map(|(photo, _)| of(photo)).collect::<Vec<_>>());
        // Each sample alone has a part in the sum of the regulariser.
        let both = losses(&trainer, &batch);
        let each = (0..2).map(|sample| {
            let one = |tensor: &Tensor| tensor.narrow(0, sample, 1);
            let batch = Batch {
                latents: one(&batch.latents),
                noise: one(&batch.noise),
                timesteps: one(&batch.timesteps),
                mask: None,
                prompts: vec![batch.prompts[sample as usize].clone()],
                class_prompts: Vec::new(),
                sizes: Vec::new(),
                references: None,
                drawn: None,
            };
            term(&losses(&trainer, &batch), "attention")
        });
        let expected: f64 = each.sum();
        assert!((term(&both, "attention") - expected).abs() < 1e-5 * expected, "step {step}");
    }
}

#[test]
fn captions_that_say_the_prompt_are_the_prompt() {
    let prior = |captions: Option<Captions>| TrainConfig { captions, prior: Some(Prior::default()), ..config() };
    let mut said = photos();
    for photo in &mut said {
        photo.caption.as_mut().unwrap().text = "a photo of a".to_owned();
    }
    let template = Captions { template: "[caption] [V] [category]".to_owned() };
    let (plain, mut of_prompt) = start(prior(None), photos());
    let (trainer, mut of_captions) = start(prior(Some(template)), said);
    let [a, b] = [of_prompt.batch(at(0)).unwrap(), of_captions.batch(at(0)).unwrap()];
    assert_eq!((a.prompts.len(), b.prompts.len(), a.latents.size()[0]), (1, 2, 4));
    assert_eq!(b.prompts, ["a photo of a [V] cat", "a photo of a [V] cat"]);
    let (a, b) = (losses(&plain, &a), losses(&trainer, &b));
    for name in ["diffusion", "prior", "attention"] {
        let (a, b) = (term(&a, name), term(&b, name));
        assert!((a - b).abs() < 1e-5 * a.abs(), "{name}: {a} {b}");
    }
}

#[test]
fn a_mask_weighs_cells_and_loses_nothing_where_it_is_white() {
    let masked =
        |unmasked_weight, photos| start(TrainConfig { masks: Some(Masks { unmasked_weight }), ..config() }, photos);
    let (plain, mut batches) = start(config(), common::photos());
    let batch = batches.batch(at(1)).unwrap();
    let expected = term(&losses(&plain, &batch), "diffusion");

    // Half of the photos, and the other half: their losses make up the whole.
    let halves = [0u8, 255].map(|left| {
        let mut photos = common::photos();
        for photo in &mut photos {
            let (width, height) = photo.pixels.dimensions();
            let pixels =
                GrayImage::from_fn(width, height, |x, _| Luma([if x < width / 2 { left } else { 255 - left }]));
            photo.mask = Some(Mask { path: "m.png".into(), sha256: String::new(), pixels });
        }
        photos
    });
    // Without a rotation, of which the corners are of neither half.
    let upright = |config: TrainConfig| {
        let augmentation = photos::Augmentation { rotation_p: 0.0, ..config.augmentation.clone() };
        TrainConfig { augmentation, ..config }
    };
    let (whole, mut whole_batches) = start(upright(config()), common::photos());
    let whole_batch = whole_batches.batch(at(1)).unwrap();
    let hidden = whole.pipeline.encode_prompts(&["a photo of a [V] cat"]).unwrap();
    let one = |trainer: &Trainer, batch: &Batch, sample: i64, mask: Option<Tensor>| {
        let one = |tensor: &Tensor| tensor.narrow(0, sample, 1);
        let batch = Batch {
            latents: one(&batch.latents),
            noise: one(&batch.noise),
            timesteps: one(&batch.timesteps),
            mask,
            prompts: batch.prompts.clone(),
            class_prompts: Vec::new(),
            sizes: Vec::new(),
            references: None,
            drawn: None,
        };
        term(&trainer.losses(&trainer.config.phases[2], &batch, &hidden).unwrap(), "diffusion")
    };
    let parts = halves.map(|photos| {
        let masks = Some(Masks { unmasked_weight: 0.0 });
        let (trainer, mut batches) = start(upright(TrainConfig { masks, ..config() }), photos);
        let batch = batches.batch(at(1)).unwrap();
        assert_same(&batch, &whole_batch);
        (0..2)
            .map(|sample| {
                let mask = batch.mask.as_ref().unwrap().narrow(0, sample, 1);
                let weight = mask.sum(Kind::Double).double_value(&[]);
                (weight, weight * one(&trainer, &batch, sample, Some(mask)))
            })
            .collect::<Vec<_>>()
    });
    for (sample, (&(a, of_a), &(b, of_b))) in parts[0].iter().zip(&parts[1]).enumerate() {
        assert!((a + b - 16.0).abs() < 0.1 && a > 0.5 && b > 0.5, "{a} {b}");
        let whole = one(&whole, &whole_batch, sample as i64, None);
        assert!(((of_a + of_b) / (a + b) - whole).abs() < 0.01 * whole, "sample {sample}");
    }

    // With a weight of 1 everywhere, and where no photo has a mask, the loss is that without.
    for (weight, photos) in [(1.0, photos()), (0.0, common::photos())] {
        let (trainer, mut batches) = masked(weight, photos);
        let batch = batches.batch(at(1)).unwrap();
        assert_eq!(batch.mask.as_ref().unwrap().min().double_value(&[]), 1.0);
        assert!((term(&losses(&trainer, &batch), "diffusion") - expected).abs() < 1e-6);
    }
    // The least weight is what is configured, and a mask that is black everywhere else is no error.
    let mut black = common::photos();
    for photo in &mut black {
        let (width, height) = photo.pixels.dimensions();
        photo.mask = Some(Mask { path: "m.png".into(), sha256: String::new(), pixels: GrayImage::new(width, height) });
    }
    for (weight, loss) in [(0.0, 0.0), (0.25, expected)] {
        let (trainer, mut batches) = masked(weight, black.clone());
        let batch = batches.batch(at(1)).unwrap();
        assert_eq!(batch.mask.as_ref().unwrap().max().double_value(&[]), weight);
        assert!((term(&losses(&trainer, &batch), "diffusion") - loss).abs() < 1e-6);
    }
}

/// Five photos of three shapes.
fn shapes() -> Vec<Photo> {
    let sizes = [(64, 64), (90, 60), (60, 90), (96, 64), (70, 70)];
    let mut photos = Vec::new();
    for (n, (width, height)) in sizes.into_iter().enumerate() {
        let n = n as u32;
        let pixels = images::RgbImage::from_fn(width, height, |x, y| {
            [(x * 3 + n * 50) as u8, (y * 2) as u8, (x ^ y) as u8].into()
        });
        photos.push(Photo::new(format!("{n}.png"), pixels));
    }
    photos
}

fn buckets() -> TrainConfig {
    let augmentation = photos::Augmentation { resolution: 64, ..config().augmentation };
    TrainConfig { augmentation, buckets: true, ..config() }
}

#[test]
fn batches_of_one_shape_show_every_photo_in_its_own() {
    let masks = Some(Masks::default());
    let (trainer, mut batches) = start(TrainConfig { prior: Some(Prior::default()), masks, ..buckets() }, shapes());
    let mut seen = std::collections::BTreeMap::new();
    for step in 0..10 {
        let crops = batches.crops(at(step)).unwrap();
        let size = crops[0].1.size();
        assert!(crops.iter().all(|(_, crop)| crop.size() == size));
        for (photo, crop) in crops {
            let (width, height) = photo.pixels.dimensions();
            assert_eq!(crop.size()[0] > crop.size()[1], width > height);
            *seen.entry(photo.name()).or_insert(0) += 1;
        }
        let batch = batches.batch(at(step)).unwrap();
        let [width, height] = size.map(|side| i64::from(side) / 8);
        assert_eq!(batch.latents.size(), [4, 4, height, width]);
        assert_eq!(batch.mask.as_ref().unwrap().size(), [2, 1, height, width]);
        if step < 3 {
            let losses = losses(&trainer, &batch);
            assert!(losses.iter().all(|term| term.value.double_value(&[]).is_finite()));
            assert!(term(&losses, "attention") > 0.0);
        }
    }
    // Two rounds of five batches of two.
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [4; 5]);
}

#[test]
fn a_batch_of_buckets_depends_on_its_place_alone_and_squares_are_as_without() {
    let upright = |config: TrainConfig| {
        let augmentation = photos::Augmentation { rotation_p: 0.0, random_crop: false, ..config.augmentation.clone() };
        TrainConfig { augmentation, ..config }
    };
    let (_, mut batches) = start(upright(buckets()), shapes());
    let in_order: Vec<Batch> = (0..3).map(|step| batches.batch(at(step)).unwrap()).collect();
    let (_, mut again) = start(upright(buckets()), shapes());
    for step in [2, 0, 1, 2] {
        assert_same(&again.batch(at(step)).unwrap(), &in_order[step]);
    }
    let square = || vec![shapes().remove(0), shapes().remove(4)];
    let (_, mut with) = start(buckets(), square());
    let (_, mut without) = start(TrainConfig { buckets: false, ..buckets() }, square());
    assert_same(&with.batch(at(1)).unwrap(), &without.batch(at(1)).unwrap());
}

/// A run's layers: all three at once.
fn layers(concept: &Path) -> ConfigLayers {
    let mut layers = ConfigLayers::new(&config()).unwrap();
    layers.put("model", json!(fixtures().join("tiny-sd21"))).unwrap();
    layers.put("concept", json!(concept)).unwrap();
    layers.put("captions", json!({})).unwrap();
    layers.put("masks", json!({})).unwrap();
    layers.put("buckets", json!(true)).unwrap();
    for (path, value) in [
        ("augmentation.resolution", "64"),
        ("validation.prompts", "[]"),
        ("validation.steps", "1"),
        ("phases.cross_attention.steps", "0"),
    ] {
        layers.set(path, value).unwrap();
    }
    layers
}

fn run(session: Session, stop_after: usize) -> Outcome {
    let steps = std::cell::Cell::new(0);
    let mut watch = |event| {
        if matches!(event, Event::Step { .. }) {
            steps.set(steps.get() + 1);
        }
    };
    session.run(&|| steps.get() >= stop_after, &mut watch).unwrap()
}

fn error(layers: ConfigLayers, out: &Path, opening: Opening<'_>) -> String {
    let said = format!("{:#}", Session::open(layers, out, Device::Cpu, opening).unwrap_err());
    assert!(!said.contains('\n'), "{said}");
    said
}

#[test]
fn a_run_records_what_it_uses_and_resumes_to_the_bit_with_the_same_alone() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let concept = folder.path().join("photos");
    let (whole, parts): (PathBuf, PathBuf) = (folder.path().join("whole"), folder.path().join("parts"));
    save(&concept, &photos());
    save_beside(&concept, &photos());
    let open = |out: &Path, opening| Session::open(layers(&concept), out, Device::Cpu, opening).unwrap();
    let session = open(&whole, Opening::New);
    let notes = session.notes().join("; ");
    for words in [
        "photos without a mask count as a whole: 2.png",
        "each photo is learned with its caption, the first as \"a [V] cat on a beach, sunny\"",
        "the loss counts under masks (2 by files, 0 by alpha channels), and outside with a weight of 0.1",
        "crops are ",
    ] {
        assert!(notes.contains(words), "{notes}");
    }
    assert_eq!(run(session, usize::MAX), Outcome::Finished);
    assert_eq!(run(open(&parts, Opening::New), 4), Outcome::Stopped);

    let record = runs::SavedRun::read(&parts).unwrap().record;
    let saved: Vec<_> = record.photos.iter().map(|photo| photo.caption.as_deref().unwrap()).collect();
    assert_eq!(saved, TEXTS);
    assert_eq!(record.photos.iter().filter(|photo| photo.mask.is_some()).count(), 2);

    let resumed = |said: &[&str]| {
        let found = error(ConfigLayers::of_run(&parts).unwrap(), &parts, Opening::Resumed);
        assert!(said.iter().all(|words| found.contains(words)), "{found}");
    };
    let put = |file: &str, bytes: &[u8]| fs::write(concept.join(file), bytes).unwrap();
    let mask = fs::read(concept.join("0-masklabel.png")).unwrap();
    put("1.txt", b"a [V] cat, elsewhere");
    resumed(&["another caption of 1.png"]);
    put("1.txt", TEXTS[1].as_bytes());
    fs::copy(concept.join("1-masklabel.png"), concept.join("0-masklabel.png")).unwrap();
    resumed(&["0-masklabel.png has 49 x 40 pixels, but its photo 0.png has 48 x 40"]);
    GrayImage::new(48, 40).save(concept.join("0-masklabel.png")).unwrap();
    resumed(&["another mask of 0.png"]);
    fs::remove_file(concept.join("0-masklabel.png")).unwrap();
    resumed(&["another mask of 0.png"]);
    put("0-masklabel.png", &mask);
    let mut without = ConfigLayers::of_run(&parts).unwrap();
    without.put("buckets", json!(false)).unwrap();
    assert!(error(without, &parts, Opening::Resumed).contains("config.buckets was true, is false"));

    // Names and line endings may have changed.
    put("2.txt", format!("\u{feff}{}\r\n", TEXTS[2]).as_bytes());
    let moved = folder.path().join("moved");
    fs::rename(&concept, &moved).unwrap();
    let mut there = ConfigLayers::of_run(&parts).unwrap();
    there.put("concept", json!(moved)).unwrap();
    let session = Session::open(there, &parts, Device::Cpu, Opening::Resumed).unwrap();
    assert_eq!(run(session, usize::MAX), Outcome::Finished);
    for file in ["learned_embeds.safetensors", "unet/diffusion_pytorch_model.safetensors"] {
        assert_eq!(fs::read(whole.join(file)).unwrap(), fs::read(parts.join(file)).unwrap(), "{file}");
    }
    // Whoever evaluates it needs the photos alone.
    fs::remove_file(moved.join("0.txt")).unwrap();
    assert_eq!(trainer::FinishedRun::open(&parts).unwrap().photos().unwrap().len(), 3);
}

#[test]
fn captions_that_do_not_call_the_subject_are_refused_by_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let concept = folder.path().join("photos");
    save(&concept, &photos());
    let says = |text: &str, set: &[(&str, serde_json::Value)], words: &[&str]| {
        save_beside(&concept, &photos());
        fs::write(concept.join("1.txt"), text).unwrap();
        let mut layers = layers(&concept);
        for (path, value) in set {
            layers.put(path, value.clone()).unwrap();
        }
        let said = error(layers, &folder.path().join("run"), Opening::New);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!folder.path().join("run").exists());
    };
    let dreambooth = [("phases.unet.lambda_mean", json!(0)), ("phases.unet.lambda_variance", json!(0))];
    let embedding = [("phases.embedding.lambda_mean", json!(0))];
    let plain = [
        &dreambooth[..],
        &embedding,
        &[("phases.cross_attention.lambda_mean", json!(0)), ("phases.cross_attention.lambda_variance", json!(0))],
    ]
    .concat();
    says("cat, outdoors", &[], &["the caption 1.txt has no [V]", "--caption-template"]);
    says("a [V] cat and a <new> cat", &[], &["the caption 1.txt has [V] 2 times"]);
    says("a [V], outdoors", &plain, &["the caption 1.txt lacks the class noun \"cat\""]);
    says("a [V] cats, outdoors", &plain, &["lacks the class noun"]);
    says("a cat, [V], outdoors", &[], &["the caption 1.txt: the category \"cat\" does not follow [V]"]);
    let long = format!("{} [V] cat", "red ".repeat(80));
    says(&long, &[], &["the caption 1.txt", "lacks the class noun"]);
    let twice = [("captions.template", json!("[V] [category], [caption]"))];
    says("a [V] cat", &twice, &["has [V] ", " 2 times, counting the template's"]);
    says("a cat", &[("captions.template", json!("[V] [category]"))], &["captions.template is", "exactly once"]);
    says("a cat", &[("masks.unmasked_weight", json!(1.5))], &["masks.unmasked_weight is 1.5"]);
    says("a cat", &[("sizes", json!({}))], &["masks and sizes are both set"]);
    fs::remove_file(concept.join("1.txt")).unwrap();
    let said = error(layers(&concept), &folder.path().join("run"), Opening::New);
    assert!(said.contains("1.png has no caption: write 1.txt beside it"), "{said}");
}

#[test]
fn what_the_text_encoder_cuts_of_captions_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let concept = folder.path().join("photos");
    save(&concept, &photos());
    save_beside(&concept, &photos());
    fs::write(concept.join("1.txt"), format!("a [V] cat, {}dog", "red ".repeat(80))).unwrap();
    let session = Session::open(layers(&concept), &folder.path().join("run"), Device::Cpu, Opening::New).unwrap();
    let said = session.notes().iter().find(|note| note.contains("positions")).unwrap();
    assert!(said.starts_with("1 of 3 captions are longer than") && said.ends_with("in 1.txt"), "{said}");
}
