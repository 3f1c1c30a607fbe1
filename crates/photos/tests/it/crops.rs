//! Crops against torchvision on Pillow, and the choices of seeds against an independent ChaCha.

#![allow(missing_docs, clippy::unwrap_used)]

use image::{Rgb, RgbImage, imageops};
use photos::{Augmentation, AugmentedCrop};
use serde::Deserialize;

use crate::common::{fixtures, hex_sha256, photo};

#[derive(Deserialize)]
struct Goldens {
    #[serde(rename = "views")]
    crops: Vec<Rendered>,
    #[serde(rename = "draws")]
    sampled: Vec<Sampled>,
}

#[derive(Deserialize)]
struct Rendered {
    width: u32,
    height: u32,
    #[serde(rename = "view", deserialize_with = "square")]
    crop: AugmentedCrop,
    sha256: String,
}

#[derive(Deserialize)]
struct Sampled {
    seed: u64,
    augmentation: Augmentation,
    width: u32,
    height: u32,
    #[serde(rename = "view", deserialize_with = "square")]
    crop: AugmentedCrop,
}

/// A square crop as the goldens have it.
fn square<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<AugmentedCrop, D::Error> {
    #[derive(Deserialize)]
    struct Square {
        angle: Option<f32>,
        flip: bool,
        left: u64,
        top: u64,
        resolution: u32,
    }
    let Square { angle, flip, left, top, resolution } = Square::deserialize(deserializer)?;
    Ok(AugmentedCrop { angle, flip, left, top, width: resolution, height: resolution })
}

fn goldens() -> Goldens {
    serde_json::from_slice(&std::fs::read(fixtures().join("views.json")).unwrap()).unwrap()
}

#[test]
fn every_pixel_is_torchvisions() {
    let cases = goldens().crops;
    assert!(cases.len() > 300);
    let differ =
        |case: &&Rendered| hex_sha256(case.crop.render(&photo(case.width, case.height)).as_raw()) != case.sha256;
    let wrong: Vec<_> = cases.iter().filter(differ).map(|case| (case.width, case.height, &case.crop)).collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), cases.len());
}

#[test]
fn seeds_give_the_same_crops_everywhere() {
    for Sampled { seed, augmentation, width, height, crop } in goldens().sampled {
        assert_eq!(augmentation.sample(seed, width, height), crop, "seed {seed}");
    }
}

#[test]
fn augmentations_happen_as_often_as_configured() {
    let augmentation = Augmentation { resolution: 64, ..Augmentation::default() };
    let crops: Vec<AugmentedCrop> = (0..20_000).map(|seed| augmentation.sample(seed, 100, 64)).collect();
    let share =
        |of: &dyn Fn(&AugmentedCrop) -> bool| crops.iter().filter(|crop| of(crop)).count() as f64 / crops.len() as f64;
    // Five standard deviations of 20,000 samples are at most 0.018.
    assert!((share(&|crop| crop.angle.is_some()) - 0.75).abs() < 0.018);
    assert!((share(&|crop| crop.flip) - 0.25).abs() < 0.018);
    let angles: Vec<f32> = crops.iter().filter_map(|crop| crop.angle).collect();
    assert!(angles.iter().all(|angle| angle.abs() <= 45.0));
    for edge in [-30.0, 0.0, 30.0_f32] {
        let below = angles.iter().filter(|angle| **angle < edge).count() as f64 / angles.len() as f64;
        assert!((below - f64::from(edge + 45.0) / 90.0).abs() < 0.021, "{below} below {edge}");
    }
    // 37 places for the square, the first and the last included.
    let mut places = [0; 37];
    for crop in crops.iter().filter(|crop| crop.angle.is_none()) {
        assert_eq!(crop.top, 0);
        places[crop.left as usize] += 1;
    }
    assert!(places.iter().all(|count| (80..200).contains(count)), "{places:?}");
}

#[test]
fn each_step_can_be_switched_alone() {
    let all = Augmentation { resolution: 32, rotation_p: 1.0, flip_p: 1.0, ..Augmentation::default() };
    for seed in 0..50 {
        let crop = all.sample(seed, 80, 50);
        let unrotated = Augmentation { rotation_p: 0.0, ..all.clone() }.sample(seed, 80, 50);
        let unflipped = Augmentation { flip_p: 0.0, ..all.clone() }.sample(seed, 80, 50);
        assert!(crop.flip && crop.angle.is_some() && unrotated.flip && unrotated.angle.is_none());
        assert_eq!(AugmentedCrop { flip: true, ..unflipped }, crop);
        let centered = Augmentation { random_crop: false, ..all.clone() }.sample(seed, 80, 50);
        assert_eq!(AugmentedCrop { left: crop.left, top: crop.top, ..centered }, crop);
    }
    let none = Augmentation::none(32);
    assert_eq!(
        none.sample(1, 80, 50),
        AugmentedCrop { angle: None, flip: false, left: 10, top: 0, width: 32, height: 32 }
    );
    assert_eq!(none.sample(1, 80, 50), none.sample(2, 80, 50));
}

#[test]
fn a_crop_of_the_size_of_a_photo_is_the_photo() {
    let square = photo(40, 40);
    let crop = Augmentation::none(40).sample(0, 40, 40);
    assert_eq!(crop.render(&square), square);
    let mirrored = AugmentedCrop { flip: true, ..crop.clone() };
    assert_eq!(mirrored.render(&square), imageops::flip_horizontal(&square));
    // A quarter turn counter-clockwise, as Pillow's angles are.
    let rotated = AugmentedCrop { angle: Some(90.0), ..crop };
    assert_eq!(rotated.render(&square), imageops::rotate270(&square));
}

#[test]
fn corners_of_rotated_photos_are_black() {
    let white = RgbImage::from_pixel(64, 64, Rgb([255; 3]));
    let crop = AugmentedCrop { angle: Some(45.0), flip: false, left: 0, top: 0, width: 91, height: 91 };
    let rotated = crop.render(&white);
    assert_eq!(rotated.get_pixel(0, 0).0, [0; 3]);
    assert_eq!(rotated.get_pixel(45, 45).0, [255; 3]);
}

#[test]
fn a_crop_for_another_photos_size_stays_inside() {
    let crop = AugmentedCrop { angle: None, flip: true, left: 9000, top: u64::MAX, width: 16, height: 16 };
    let inside = AugmentedCrop { left: 8, top: 0, ..crop.clone() };
    assert_eq!(crop.render(&photo(24, 16)), inside.render(&photo(24, 16)));
    assert_eq!(crop.render(&RgbImage::new(0, 0)), RgbImage::new(16, 16));
    let nonsense = AugmentedCrop { angle: Some(f32::NAN), ..crop.clone() };
    assert_eq!(nonsense.render(&photo(24, 16)), inside.render(&photo(24, 16)));
    assert_eq!(AugmentedCrop { width: 0, height: 0, ..crop }.render(&photo(4, 4)).dimensions(), (0, 0));
}

#[test]
fn a_strip_costs_no_more_than_its_crop() {
    // Resized as a whole this would be 512 x 33,554,432 pixels.
    let strip = photo(1, 65536);
    let crop = Augmentation::default().sample(0, 1, 65536);
    assert_eq!(crop.render(&strip).dimensions(), (512, 512));
    let straight = Augmentation { rotation_p: 0.0, ..Augmentation::default() }.sample(3, 1, 65536);
    assert!(straight.top > 1_000_000);
    assert_eq!(straight.render(&strip).dimensions(), (512, 512));
}

#[test]
fn settings_and_crops_survive_json() {
    for seed in 0..200 {
        let crop = Augmentation::default().sample(seed, 640, 480);
        let json = serde_json::to_string(&crop).unwrap();
        assert_eq!(serde_json::from_str::<AugmentedCrop>(&json).unwrap(), crop);
    }
    let partial: Augmentation = serde_json::from_str(r#"{"flip_p": 0}"#).unwrap();
    assert_eq!(partial, Augmentation { flip_p: 0.0, ..Augmentation::default() });
    let unknown = serde_json::from_str::<Augmentation>(r#"{"flip": 0}"#).unwrap_err().to_string();
    assert!(unknown.contains("unknown field `flip`"));
}

#[test]
fn senseless_settings_are_named() {
    let valid = Augmentation::default();
    assert_eq!(valid.validate(), Ok(()));
    let message = |augmentation: Augmentation| augmentation.validate().unwrap_err().to_string();
    assert_eq!(message(Augmentation { flip_p: 1.5, ..valid }), "flip_p is 1.5, but it must be from 0 to 1");
    assert!(message(Augmentation { rotation_p: f64::NAN, ..valid }).starts_with("rotation_p is NaN"));
    assert!(message(Augmentation { rotation_degrees: -1.0, ..valid }).starts_with("rotation_degrees is -1"));
    assert!(message(Augmentation { resolution: 0, ..valid }).starts_with("resolution is 0"));
}
