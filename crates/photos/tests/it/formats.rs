//! Every format and colour mode against Pillow, and every orientation against the upright twin.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;

use image::{ImageFormat, RgbImage};
use photos::{Options, PhotoFolder};

use crate::common::{encoded, fixtures, folder, photo, single};

fn largest_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// How far two correct decoders may be apart, in 8-bit steps; the largest that were measured are 2, 1 and 0.
fn tolerance(name: &str) -> u8 {
    match name {
        // The standard leaves the rounding of the inverse transform open.
        _ if name.ends_with(".jpg") => 3,
        // To 8 bits before the compositing, not after.
        "grey_alpha16.png" | "rgba16.png" => 1,
        _ => 0,
    }
}

#[test]
fn every_format_is_what_pillow_makes_of_it() {
    let opened = PhotoFolder::open(fixtures().join("formats")).unwrap();
    assert!(opened.skipped.is_empty());
    assert_eq!(opened.photos.len(), fs::read_dir(fixtures().join("expected")).unwrap().count());
    let mut wrong = Vec::new();
    for photo in &opened.photos {
        let name = photo.name();
        let expected = image::open(fixtures().join(format!("expected/{name}.png"))).unwrap().into_rgb8();
        let difference = largest_difference(&photo.pixels, &expected);
        println!("{name}: {difference}");
        if difference > tolerance(&name) {
            wrong.push(format!("{name}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// What Pillow's LittleCMS makes of embedded profiles (`fixtures/photos/profiles/generate.py`).
#[test]
fn embedded_colour_profiles_are_converted_to_srgb() {
    let folder = fixtures().join("profiles");
    let opened = PhotoFolder::open(&folder).unwrap();
    assert_eq!(opened.photos.len(), fs::read_dir(folder.join("expected")).unwrap().count());
    for photo in &opened.photos {
        let name = photo.name();
        let expected = image::open(folder.join(format!("expected/{name}.png"))).unwrap().into_rgb8();
        let stored = image::open(folder.join(&name)).unwrap().into_rgb8();
        let difference = largest_difference(&photo.pixels, &expected);
        println!("{name}: {difference}, unconverted {}", largest_difference(&stored, &expected));
        // Two steps of rounding; what a JPEG decoder may leave open is steeper in a darker gamma.
        let allowed =
            if name == "srgb.png" { 0 } else { tolerance(&name).max(2) + 2 * u8::from(name.ends_with(".jpg")) };
        assert!(difference <= allowed, "{name}: {difference}");
        assert!(name == "srgb.png" || largest_difference(&stored, &expected) > 15, "{name}");
    }
    let names = "adobe.jpg, adobe.png, grey.jpg, grey.png, p3.tiff and 2 more";
    let note = format!("colours are converted from embedded colour profiles to sRGB: {names}");
    assert_eq!(opened.notes.last(), Some(&note));
}

#[test]
fn a_turned_photo_is_its_upright_twin() {
    let upright = image::open(fixtures().join("exif/upright.png")).unwrap().into_rgb8();
    let opened = PhotoFolder::open(fixtures().join("exif")).unwrap();
    assert_eq!(opened.photos.len(), 1 + 8 * 4);
    for photo in &opened.photos {
        // JPEG is not lossless, but nothing may be further off than what it costs at quality 95.
        let allowed = if photo.name().ends_with(".jpg") { 24 } else { 0 };
        let difference = largest_difference(&photo.pixels, &upright);
        println!("{}: {difference}", photo.name());
        assert!(difference <= allowed, "{}: {difference}", photo.name());
    }
}

/// A JPEG with an orientation in an EXIF segment written by hand, in one of the two byte orders.
fn with_orientation(jpeg: &[u8], orientation: u16, big_endian: bool) -> Vec<u8> {
    let order = if big_endian { b"MM" } else { b"II" };
    let word = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let long = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut exif = b"Exif\0\0".to_vec();
    exif.extend([&order[..], &word(42), &long(8), &word(1)].concat());
    // Tag 0x0112, type SHORT, one value, no further directory.
    exif.extend([&word(0x0112)[..], &word(3), &long(1), &word(orientation), &word(0), &long(0)].concat());
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xFF, 0xE1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn all_orientations_of_a_jpeg() {
    let jpeg = encoded(&photo(24, 16), ImageFormat::Jpeg);
    let stored = single("a.jpg", &jpeg).unwrap().pixels;
    let (right, bottom) = (23, 15);
    // Where the pixel (x, y) of what is seen lies in what is stored (EXIF 2.3, 4.6.4.A).
    type Place = fn(u32, u32, u32, u32) -> (u32, u32);
    let places: [Place; 8] = [
        |x, y, _, _| (x, y),
        |x, y, right, _| (right - x, y),
        |x, y, right, bottom| (right - x, bottom - y),
        |x, y, _, bottom| (x, bottom - y),
        |x, y, _, _| (y, x),
        |x, y, _, bottom| (y, bottom - x),
        |x, y, right, bottom| (right - y, bottom - x),
        |x, y, right, _| (right - y, x),
    ];
    for (orientation, place) in (1..).zip(places) {
        let size = if orientation < 5 { (24, 16) } else { (16, 24) };
        let seen = RgbImage::from_fn(size.0, size.1, |x, y| {
            let (x, y) = place(x, y, right, bottom);
            *stored.get_pixel(x, y)
        });
        for big_endian in [false, true] {
            let turned = single("a.jpg", &with_orientation(&jpeg, orientation, big_endian)).unwrap();
            assert_eq!(turned.pixels, seen, "orientation {orientation}");
        }
    }
    for senseless in [0, 9, 300] {
        assert_eq!(single("a.jpg", &with_orientation(&jpeg, senseless, true)).unwrap().pixels, stored);
    }
    // A segment that ends too soon costs the orientation, not the photo.
    let cut = [&jpeg[..2], &[0xFF, 0xE1, 0, 12], b"Exif\0\0MM\0*", &jpeg[2..]].concat();
    assert_eq!(single("a.jpg", &cut).unwrap().pixels, stored);
}

#[test]
fn transparency_shows_what_was_asked_for() {
    let pixels = image::RgbaImage::from_pixel(4, 4, image::Rgba([200, 100, 0, 51]));
    let folder = tempfile::tempdir().unwrap();
    pixels.save(folder.path().join("a.png")).unwrap();
    let with = |background| {
        let options = Options { background, ..Options::default() };
        PhotoFolder::open_with(folder.path(), &options).unwrap().photos[0].pixels.get_pixel(2, 2).0
    };
    assert_eq!(with(Some([255; 3])), [244, 224, 204]);
    assert_eq!(with(Some([0; 3])), [40, 20, 0]);
    assert_eq!(with(None), [200, 100, 0]);
}

#[test]
fn shrinking_is_one_resize() {
    let folder = tempfile::tempdir().unwrap();
    photo(90, 60).save(folder.path().join("a.png")).unwrap();
    let with = |short| {
        let options = Options { max_short_side: Some(short), ..Options::default() };
        PhotoFolder::open_with(folder.path(), &options).unwrap().photos.remove(0).pixels
    };
    assert_eq!(with(60), photo(90, 60));
    assert_eq!(with(1000), photo(90, 60));
    assert_eq!(with(40).dimensions(), (60, 40));
    // What a photo of that size shows is the middle of the shrunk one.
    let crop = photos::Augmentation::none(40).sample(0, 90, 60);
    let middle = image::imageops::crop_imm(&with(40), 10, 0, 40, 40).to_image();
    assert_eq!(crop.render(&photo(90, 60)), middle);
}

/// Large photos are decoded after the others, but have their place by name.
#[test]
fn a_large_photo_stays_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for (name, side) in [("b.png", 5800), ("a.png", 8), ("c.png", 8)] {
        image::RgbImage::new(side, side).save(folder.path().join(name)).unwrap();
    }
    let photos = photos::PhotoFolder::open(folder.path()).unwrap().photos;
    let names: Vec<_> = photos.iter().map(photos::Photo::name).collect();
    assert_eq!(names, ["a.png", "b.png", "c.png"]);
    assert_eq!(photos[1].pixels.dimensions(), (5800, 5800));
}

#[test]
fn of_an_animated_gif_the_first_frame_is_used_and_a_note_says_so() {
    let gif = |frames: u32| {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
        for frame in 0..frames {
            let shade = [if frame == 0 { 255 } else { 0 }; 3];
            let pixels = RgbImage::from_pixel(8, 6, shade.into());
            let frame = image::Frame::new(image::DynamicImage::ImageRgb8(pixels).into_rgba8());
            encoder.encode_frame(frame).unwrap();
        }
        drop(encoder);
        bytes
    };
    let folder = folder(&[("moving.gif", &gif(2)), ("still.gif", &gif(1))]);
    let opened = PhotoFolder::open(folder.path()).unwrap();
    assert!(opened.photos.iter().all(|photo| photo.pixels.pixels().all(|pixel| pixel.0 == [255; 3])));
    assert_eq!(opened.notes, ["of animated images the first frame is used: moving.gif"]);
}
