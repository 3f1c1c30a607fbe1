//! Custom Diffusion's augmentation against the golden of the authors' and diffusers' rules.

#![allow(missing_docs, clippy::unwrap_used)]

use image::{Rgb, RgbImage, imageops};
use images::Filter;
use photos::{ApparentSize, Augmentation, Place, PlacedPhoto, Region, SizeAugmentation, SizeRules};
use serde::Deserialize;

use crate::common::photo;

#[derive(Deserialize)]
struct Case {
    size: u32,
    mask_size: u32,
    scale: u32,
    top: u32,
    left: u32,
    diffusers: Placed,
    official: Placed,
}

#[derive(Deserialize)]
struct Placed {
    scale: u32,
    pasted: Option<[u32; 4]>,
    cropped: Option<[u32; 4]>,
    mask: [u32; 4],
    phrases: Vec<String>,
    cells: usize,
}

fn sides(region: Region) -> [u32; 4] {
    [region.top, region.left, region.bottom, region.right]
}

#[test]
fn places_masks_and_phrases_are_those_of_the_golden() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/methods/custom_diffusion/augmentation.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() > 40);
    for case in &cases {
        for (rules, theirs) in [(SizeRules::Official, &case.official), (SizeRules::Diffusers, &case.diffusers)] {
            let what = format!("{rules:?} of size {} and scale {} at {}", case.size, case.scale, case.left);
            let ours = rules.place(case.size, case.scale, case.top, case.left);
            assert_eq!(ours.scale, theirs.scale, "{what}");
            match (ours.place, theirs.cropped) {
                (Place::Cropped { top, left }, Some(cropped)) => {
                    assert_eq!([top, left, top + case.size, left + case.size], cropped, "{what}");
                    assert_eq!(sides(ours.region()), [0, 0, case.size, case.size]);
                }
                (_, None) => assert_eq!(Some(sides(ours.region())), theirs.pasted, "{what}"),
                (place, cropped) => panic!("{what}: {place:?}, but {cropped:?}"),
            }
            let mask = ours.mask(case.mask_size);
            assert_eq!(
                (sides(ours.mask_region(case.mask_size)), mask.len()),
                (theirs.mask, case.mask_size.pow(2) as usize)
            );
            assert_eq!(mask.iter().filter(|cell| **cell == 1).count(), theirs.cells, "{what}");
            let size = match theirs.phrases.first().map(String::as_str) {
                None => ApparentSize::Usual,
                Some("a far away ") => ApparentSize::Far,
                Some(_) => ApparentSize::Near,
            };
            assert_eq!(ours.apparent_size(), size, "{what}");
        }
    }
}

#[test]
fn scales_are_those_of_the_rules() {
    const SIDE: u32 = 512;
    let samples = |rules| {
        let augmentation = SizeAugmentation { rules, ..SizeAugmentation::default() };
        (0..20_000).map(move |seed| augmentation.sample(seed, SIDE, 64, 0.5)).collect::<Vec<PlacedPhoto>>()
    };
    for rules in [SizeRules::Official, SizeRules::Diffusers] {
        let placed = samples(rules);
        let share = |of: &dyn Fn(&PlacedPhoto) -> bool| placed.iter().filter(|p| of(p)).count() as f64 / 20_000.0;
        // Five standard deviations of 20,000 samples are at most 0.018. From 170 to 512 there are 343 sides, of which
        // those to 307 are small.
        assert!((share(&|p| p.apparent_size() == ApparentSize::Near) - 1.0 / 3.0).abs() < 0.018);
        assert!((share(&|p| p.apparent_size() == ApparentSize::Far) - 2.0 / 3.0 * 138.0 / 343.0).abs() < 0.018);
        assert!((share(&|p| p.flip) - 0.5).abs() < 0.018);
        let scales = |near: bool| placed.iter().map(|p| p.scale).filter(move |scale| (*scale > SIDE) == near);
        assert_eq!([scales(false).min(), scales(false).max()], [Some(170), Some(512)]);
        assert_eq!(scales(true).min(), Some(614));
        assert_eq!(scales(true).max(), Some(if rules == SizeRules::Official { 716 } else { 715 }));
        assert_eq!(rules == SizeRules::Official, placed.iter().all(|p| p.scale % 2 == 0));
        let within = |p: &PlacedPhoto| match p.place {
            Place::Whole => rules == SizeRules::Official && f64::from(p.scale) >= 0.6 * 512.0,
            Place::Pasted { top, left } => top.max(left) + p.scale <= SIDE,
            Place::Cropped { top, left } => top.max(left) + SIDE <= p.scale,
        };
        assert!(placed.iter().all(within));
        // Both ends of the free room are reached.
        let room = |p: &PlacedPhoto| SIDE.abs_diff(p.scale);
        for end in [0, 1] {
            let at = |p: &&PlacedPhoto| matches!(p.place, Place::Cropped { left, .. } if left == end * room(p));
            assert!(placed.iter().any(|p| at(&p)));
        }
    }
    assert_eq!(
        SizeAugmentation::default().sample(3, SIDE, 64, 0.5),
        SizeAugmentation::default().sample(3, SIDE, 64, 0.5)
    );
}

#[test]
fn every_smallest_side_is_a_third_rounded_down_and_no_mask_is_empty() {
    let augmentation = SizeAugmentation { rules: SizeRules::Diffusers, shrink_p: 1.0, ..SizeAugmentation::default() };
    for side in 1..=2048_u32 {
        assert_eq!((augmentation.smallest * f64::from(side)) as u32, side / 3);
    }
    for side in [8, 16, 24, 32, 64, 128] {
        for seed in 0..200 {
            let placed = augmentation.sample(seed, side, side / 8, 0.0);
            assert!(placed.mask(side / 8).contains(&1), "{placed:?}");
        }
    }
}

/// Columns of one colour each, so that squashing, mirroring and cropping show.
#[test]
fn what_is_shown_is_the_photo_where_the_region_says() {
    let photo = photo(90, 60);
    let squashed = |side| images::resize(&photo, side, side, Filter::Bilinear);
    let place = |scale, place, flip| PlacedPhoto { side: 64, flip, scale, place };
    let part = |image: &RgbImage, left, top, side| imageops::crop_imm(image, left, top, side, side).to_image();
    for flip in [false, true] {
        let mirrored = |image: RgbImage| if flip { imageops::flip_horizontal(&image) } else { image };
        assert_eq!(place(40, Place::Whole, flip).render(&photo), mirrored(squashed(64)));
        let pasted = place(30, Place::Pasted { top: 5, left: 20 }, flip).render(&photo);
        assert_eq!(part(&pasted, 20, 5, 30), mirrored(squashed(30)));
        let around = pasted.enumerate_pixels().filter(|(x, y, _)| !(20..50).contains(x) || !(5..35).contains(y));
        assert!(
            around.clone().count() == 64 * 64 - 900 && around.into_iter().all(|(.., pixel)| *pixel == Rgb([128; 3]))
        );
        let cropped = place(80, Place::Cropped { top: 16, left: 3 }, flip).render(&photo);
        assert_eq!(cropped, part(&mirrored(squashed(80)), 3, 16, 64));
    }
    let empty = place(30, Place::Whole, false).render(&RgbImage::new(0, 0));
    assert_eq!(empty.dimensions(), (64, 64));
}

#[test]
fn a_configuration_names_what_is_out_of_range() {
    let read = |text: &str| serde_json::from_str::<SizeAugmentation>(text).unwrap();
    assert_eq!(read("{}"), SizeAugmentation::default());
    assert_eq!(read(r#"{"rules": "diffusers", "shrink_p": 0.66}"#).rules, SizeRules::Diffusers);
    SizeAugmentation::default().validate().unwrap();
    for (text, message) in [
        (r#"{"shrink_p": 1.5}"#, "shrink_p is 1.5, but it must be from 0 to 1"),
        (r#"{"smallest": 0}"#, "smallest is 0, but it must be from 0.01 to 1"),
        (r#"{"largest": 1.1}"#, "largest is 1.1, but it must be from 1.2 to 10"),
    ] {
        assert_eq!(read(text).validate().unwrap_err().to_string(), message);
    }
    assert!(Augmentation { flip_p: 0.5, ..Augmentation::none(64) }.validate().is_ok());
}
