//! The images that diffusers makes of the same folder, prompts and noise.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use golden::{Golden, fixtures};
use images::RgbImage;
use sampling::{Pipeline, Request, Settings};
use scheduler::{PredictionType, SchedulerKind};
use tch::{Device, Kind};

const PIPELINES: [&str; 2] = ["tiny-sd21", "tiny-sd15"];
const PROMPTS: [&str; 2] = ["a photo of a cat", "an oil painting of two dogs on the beach"];

fn pipeline(name: &str) -> Pipeline {
    Pipeline::from_folder(&fixtures().join(name), (Kind::Float, Device::Cpu)).unwrap()
}

fn reference() -> Golden {
    Golden::open("pipelines/pictures.safetensors")
}

/// Asserts that no channel of any pixel differs by more than one.
pub(crate) fn assert_alike(what: &str, images: &[RgbImage], reference: &Golden) {
    let expected = Vec::<u8>::try_from(reference.get(what).flatten(0, -1)).unwrap();
    let actual: Vec<u8> = images.iter().flat_map(RgbImage::as_raw).copied().collect();
    assert_eq!(actual.len(), expected.len(), "{what}: size");
    let worst = actual.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    let differing = actual.iter().zip(&expected).filter(|(a, b)| a != b).count();
    println!("{what}: {differing} of {} bytes differ, by at most {worst}", actual.len());
    assert!(worst <= 1, "{what}: differs by {worst}");
}

#[test]
fn each_scheduler_makes_the_same_images_from_the_same_seeds() {
    let reference = reference();
    for name in PIPELINES {
        let pipeline = pipeline(name);
        for kind in SchedulerKind::ALL {
            let mut requests = [Request::new(PROMPTS[0], 11), Request::new(PROMPTS[1], 12)];
            requests.iter_mut().for_each(|request| request.negative_prompt = "blurry".to_owned());
            let settings =
                Settings { steps: 10, height: 64, width: 64, scheduler: Some(kind), ..pipeline.default_settings() };
            let images = pipeline.generate(&requests, &settings, &mut |_| {}).unwrap();
            assert_alike(&format!("{name}.seeds.{kind}"), &images, &reference);
        }
    }
}

#[test]
fn previews_are_of_the_first_image_and_change_none() {
    let pipeline = pipeline("tiny-sd15");
    let requests = [Request::new(PROMPTS[0], 11), Request::new(PROMPTS[1], 12)];
    for kind in SchedulerKind::ALL {
        let settings =
            Settings { steps: 6, height: 64, width: 64, scheduler: Some(kind), ..pipeline.default_settings() };
        let images = pipeline.generate(&requests, &settings, &mut |_| {}).unwrap();
        let alone = pipeline.generate(&requests[..1], &settings, &mut |_| {}).unwrap();
        for count in [0, 2, 100] {
            let previews = |requests: &[Request]| {
                let mut previews = Vec::new();
                let mut keep = |image: RgbImage| previews.push(image);
                let made =
                    pipeline.generate_with_previews(requests, &settings, (count, &mut keep), &mut |_| {}).unwrap();
                (made, previews)
            };
            let ((made, of_two), (made_alone, of_one)) = (previews(&requests), previews(&requests[..1]));
            assert!(made == images && made_alone == alone, "{kind}");
            assert!(of_two.iter().all(|preview| preview.dimensions() == images[0].dimensions()));
            assert_eq!(of_two.len(), of_one.len());
            match count {
                100 => assert!(of_two.len() >= 5, "one after each step but the last: {kind}"),
                count => assert_eq!(of_two.len(), count, "{kind}"),
            }
        }
    }
}

#[test]
fn f32_parameters_may_compute_in_bf16() {
    let folder = fixtures().join("tiny-sd21");
    let halves = Pipeline::from_folder(&folder, (Kind::BFloat16, Device::Cpu)).unwrap();
    let mut mixed = pipeline("tiny-sd21");
    let generate = |pipeline: &Pipeline| {
        let settings = Settings { steps: 4, ..pipeline.default_settings() };
        pipeline.generate(&[Request::new(PROMPTS[0], 11)], &settings, &mut |_| {}).unwrap()
    };
    let exact = generate(&mixed);
    mixed.set_compute_dtype(Kind::BFloat16);
    assert_eq!((mixed.placement().0, mixed.compute_dtype()), (Kind::Float, Kind::BFloat16));
    let rounded = generate(&mixed);
    assert_eq!(rounded, generate(&halves));
    assert_ne!(rounded, exact);
}

#[test]
fn each_scheduler_makes_the_same_image_from_the_same_latents() {
    let reference = reference();
    for name in PIPELINES {
        let pipeline = pipeline(name);
        for kind in SchedulerKind::ALL {
            let latents = Some(reference.get("latents").get(0));
            let settings = Settings {
                guidance_scale: 3.0,
                height: 64,
                width: 64,
                scheduler: Some(kind),
                ..pipeline.default_settings()
            };
            let request = Request { latents, ..Request::new(PROMPTS[0], 5) };
            let images = pipeline.generate(&[request], &settings, &mut |_| {}).unwrap();
            assert_alike(&format!("{name}.latents.{kind}"), &images, &reference);
        }
    }
}

#[test]
fn velocity_prediction_unguided_and_default_images_are_the_same() {
    let reference = reference();
    for name in PIPELINES {
        let mut pipeline = pipeline(name);
        let default = pipeline.default_settings();
        let draw = |pipeline: &Pipeline, request: Request, settings: &Settings| {
            pipeline.generate(&[request], settings, &mut |_| {}).unwrap()
        };
        let images = draw(&pipeline, Request::new(PROMPTS[0], 0), &default);
        assert_alike(&format!("{name}.default"), &images, &reference);

        let unguided = Settings { steps: 4, guidance_scale: 1.0, height: 40, width: 72, ..default };
        let images = draw(&pipeline, Request::new("", 3), &unguided);
        assert_alike(&format!("{name}.unguided"), &images, &reference);

        pipeline.scheduler.prediction_type = PredictionType::VPrediction;
        let scheduler = Some(SchedulerKind::Ddim);
        let settings = Settings { steps: 10, height: 64, width: 64, scheduler, ..default };
        let images = draw(&pipeline, Request::new(PROMPTS[0], 7), &settings);
        assert_alike(&format!("{name}.velocity"), &images, &reference);
    }
}

#[test]
fn a_image_does_not_depend_on_its_batch() {
    let pipeline = pipeline(PIPELINES[0]);
    let request = |i: usize| Request::new(PROMPTS[i], 20 + i as u64);
    for (scheduler, eta) in [(SchedulerKind::EulerAncestral, None), (SchedulerKind::Ddim, Some(1.0))] {
        let scheduler = Some(scheduler);
        let settings = Settings { steps: 5, height: 64, width: 64, scheduler, eta, ..pipeline.default_settings() };
        let mut steps = Vec::new();
        let both = pipeline.generate(&[request(0), request(1)], &settings, &mut |step| steps.push(step.done)).unwrap();
        assert_eq!(steps, [1, 2, 3, 4, 5]);
        for (i, together) in both.iter().enumerate() {
            let alone = pipeline.generate(&[request(i)], &settings, &mut |_| {}).unwrap();
            let worst = alone[0].as_raw().iter().zip(together.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= 1, "image {i} differs by {worst}");
        }
    }
}
