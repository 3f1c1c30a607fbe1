//! Views against torchvision on Pillow, and draws against an independent ChaCha.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{fixtures, hex_sha256, photo};
use image::{Rgb, RgbImage, imageops};
use photos::{Augmentation, View};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    views: Vec<Rendered>,
    draws: Vec<Drawn>,
}

#[derive(Deserialize)]
struct Rendered {
    width: u32,
    height: u32,
    view: View,
    sha256: String,
}

#[derive(Deserialize)]
struct Drawn {
    seed: u64,
    augmentation: Augmentation,
    width: u32,
    height: u32,
    view: View,
}

fn goldens() -> Goldens {
    serde_json::from_slice(&std::fs::read(fixtures().join("views.json")).unwrap()).unwrap()
}

#[test]
fn every_pixel_is_torchvisions() {
    let cases = goldens().views;
    assert!(cases.len() > 300);
    let differ =
        |case: &&Rendered| hex_sha256(case.view.render(&photo(case.width, case.height)).as_raw()) != case.sha256;
    let wrong: Vec<_> = cases.iter().filter(differ).map(|case| (case.width, case.height, &case.view)).collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), cases.len());
}

#[test]
fn seeds_draw_the_same_views_everywhere() {
    for Drawn { seed, augmentation, width, height, view } in goldens().draws {
        assert_eq!(augmentation.draw(seed, width, height), view, "seed {seed}");
    }
}

#[test]
fn steps_happen_as_often_as_asked() {
    let augmentation = Augmentation { resolution: 64, ..Augmentation::default() };
    let views: Vec<View> = (0..20_000).map(|seed| augmentation.draw(seed, 100, 64)).collect();
    let share = |of: &dyn Fn(&View) -> bool| views.iter().filter(|view| of(view)).count() as f64 / views.len() as f64;
    // Five standard deviations of 20,000 draws are at most 0.018.
    assert!((share(&|view| view.angle.is_some()) - 0.75).abs() < 0.018);
    assert!((share(&|view| view.flip) - 0.25).abs() < 0.018);
    let angles: Vec<f32> = views.iter().filter_map(|view| view.angle).collect();
    assert!(angles.iter().all(|angle| angle.abs() <= 45.0));
    for edge in [-30.0, 0.0, 30.0_f32] {
        let below = angles.iter().filter(|angle| **angle < edge).count() as f64 / angles.len() as f64;
        assert!((below - f64::from(edge + 45.0) / 90.0).abs() < 0.021, "{below} below {edge}");
    }
    // 37 places for the square, the first and the last included.
    let mut places = [0; 37];
    for view in views.iter().filter(|view| view.angle.is_none()) {
        assert_eq!(view.top, 0);
        places[view.left as usize] += 1;
    }
    assert!(places.iter().all(|count| (80..200).contains(count)), "{places:?}");
}

#[test]
fn each_step_can_be_switched_alone() {
    let all = Augmentation { resolution: 32, rotation_p: 1.0, flip_p: 1.0, ..Augmentation::default() };
    for seed in 0..50 {
        let view = all.draw(seed, 80, 50);
        let unturned = Augmentation { rotation_p: 0.0, ..all.clone() }.draw(seed, 80, 50);
        let unflipped = Augmentation { flip_p: 0.0, ..all.clone() }.draw(seed, 80, 50);
        assert!(view.flip && view.angle.is_some() && unturned.flip && unturned.angle.is_none());
        assert_eq!(View { flip: true, ..unflipped }, view);
        let centered = Augmentation { random_crop: false, ..all.clone() }.draw(seed, 80, 50);
        assert_eq!(View { left: view.left, top: view.top, ..centered }, view);
    }
    let none = Augmentation::none(32);
    assert_eq!(none.draw(1, 80, 50), View { angle: None, flip: false, left: 10, top: 0, resolution: 32 });
    assert_eq!(none.draw(1, 80, 50), none.draw(2, 80, 50));
}

#[test]
fn a_view_of_the_wanted_size_is_the_photo() {
    let square = photo(40, 40);
    let view = Augmentation::none(40).draw(0, 40, 40);
    assert_eq!(view.render(&square), square);
    let mirrored = View { flip: true, ..view.clone() };
    assert_eq!(mirrored.render(&square), imageops::flip_horizontal(&square));
    // A quarter turn counter-clockwise, as Pillow's angles are.
    let turned = View { angle: Some(90.0), ..view };
    assert_eq!(turned.render(&square), imageops::rotate270(&square));
}

#[test]
fn corners_of_turned_photos_are_black() {
    let white = RgbImage::from_pixel(64, 64, Rgb([255; 3]));
    let view = View { angle: Some(45.0), flip: false, left: 0, top: 0, resolution: 91 };
    let turned = view.render(&white);
    assert_eq!(turned.get_pixel(0, 0).0, [0; 3]);
    assert_eq!(turned.get_pixel(45, 45).0, [255; 3]);
}

#[test]
fn a_view_of_another_photos_size_stays_inside() {
    let view = View { angle: None, flip: true, left: 9000, top: u64::MAX, resolution: 16 };
    let inside = View { left: 8, top: 0, ..view.clone() };
    assert_eq!(view.render(&photo(24, 16)), inside.render(&photo(24, 16)));
    assert_eq!(view.render(&RgbImage::new(0, 0)), RgbImage::new(16, 16));
    let nonsense = View { angle: Some(f32::NAN), ..view.clone() };
    assert_eq!(nonsense.render(&photo(24, 16)), inside.render(&photo(24, 16)));
    assert_eq!(View { resolution: 0, ..view }.render(&photo(4, 4)).dimensions(), (0, 0));
}

#[test]
fn a_strip_costs_no_more_than_its_view() {
    // Resized as a whole this would be 512 x 33,554,432 pixels.
    let strip = photo(1, 65536);
    let view = Augmentation::default().draw(0, 1, 65536);
    assert_eq!(view.render(&strip).dimensions(), (512, 512));
    let straight = Augmentation { rotation_p: 0.0, ..Augmentation::default() }.draw(3, 1, 65536);
    assert!(straight.top > 1_000_000);
    assert_eq!(straight.render(&strip).dimensions(), (512, 512));
}

#[test]
fn settings_and_views_survive_json() {
    for seed in 0..200 {
        let view = Augmentation::default().draw(seed, 640, 480);
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<View>(&json).unwrap(), view);
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
