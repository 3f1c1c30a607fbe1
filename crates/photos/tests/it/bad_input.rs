//! Whatever lies in a folder: it is a photo, named as skipped, or named in one error; nothing panics.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use image::ImageFormat;
use photos::{MAX_PIXELS, PhotoFolder};

use crate::common::{encoded, fixtures, folder, hex_sha256, photo, single};

fn message(files: &[(&str, &[u8])]) -> String {
    PhotoFolder::open(folder(files).path()).unwrap_err().to_string()
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
    assert!(!message.contains('\n'), "{message:?} has several lines");
}

fn png(image: &image::RgbImage) -> Vec<u8> {
    encoded(image, ImageFormat::Png)
}

#[test]
fn stray_bytes_between_the_segments_of_a_jpeg_are_passed_over() {
    let jpeg = encoded(&photo(64, 48), ImageFormat::Jpeg);
    let marker = |marker: u8| jpeg.windows(2).position(|pair| pair == [0xFF, marker]).unwrap();
    let (tables, frame) = (marker(0xDB), marker(0xC0));
    let (first, second) = (tables.min(frame), tables.max(frame));
    let (start, middle, rest) = (&jpeg[..first], &jpeg[first..second], &jpeg[second..]);
    let strays = [start, b"\0\0\0", middle, b"stray\xFF", rest].concat();
    let opened = PhotoFolder::open(folder(&[("a.jpg", &jpeg), ("b.jpg", &strays)]).path()).unwrap();
    assert!(opened.skipped.is_empty(), "{:?}", opened.skipped);
    assert!(opened.photos[0].pixels == opened.photos[1].pixels);
}

#[test]
fn everything_in_a_folder_is_accounted_for() {
    let image = png(&photo(8, 6));
    let jpeg = encoded(&photo(8, 6), ImageFormat::Jpeg);
    let files: [(&str, &[u8]); 8] = [
        ("b.png", &image),
        ("a photo without a known name", &jpeg),
        ("misnamed.jpg", &image),
        (".hidden.png", &image),
        ("._b.png", b"what macOS leaves"),
        ("caption.txt", b"BM is how this text begins"),
        ("empty", b""),
        ("Thumbs.db", &[0xD0, 0xCF, 0x11, 0xE0]),
    ];
    let folder = folder(&files);
    fs::create_dir(folder.path().join("more")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("b.png"), folder.path().join("link.png")).unwrap();
    let opened = PhotoFolder::open(folder.path()).unwrap();

    let names: Vec<_> = opened.photos.iter().map(photos::Photo::name).collect();
    assert_eq!(names, ["a photo without a known name", "b.png", "link.png", "misnamed.jpg"]);
    assert!(opened.photos.iter().skip(1).all(|opened| opened.pixels == photo(8, 6)));
    assert_eq!(opened.photos[1].sha256, hex_sha256(&image));
    let skipped: Vec<_> = opened.skipped.iter().map(ToString::to_string).collect();
    let not_an_image = "is not a JPEG, PNG, WebP, BMP, GIF or TIFF image";
    let expected = [
        "._b.png is hidden".to_owned(),
        ".hidden.png is hidden".to_owned(),
        format!("Thumbs.db {not_an_image}"),
        format!("caption.txt {not_an_image}"),
        format!("empty {not_an_image}"),
        "more is a sub-folder".to_owned(),
    ];
    assert_eq!(skipped, expected);
}

#[test]
fn no_photos() {
    assert_says(&message(&[]), &["holds no photos: put at least one into it"]);
    assert_says(&message(&[("a.txt", b"")]), &["holds no photos (a.txt is not a JPEG", "put at least one"]);
    let missing = PhotoFolder::open("/no/such/folder").unwrap_err();
    assert_says(&missing.to_string(), &["cannot read photos from /no/such/folder"]);
    // Said once, by whoever shows causes too.
    assert_says(&std::error::Error::source(&missing).unwrap().to_string(), &["No such file"]);
}

#[test]
fn one_photo_is_enough() {
    assert_eq!(single("a.png", &png(&photo(1, 1))).unwrap().pixels, photo(1, 1));
}

#[test]
fn a_file_is_read_in_place_of_a_folder() {
    let good = png(&photo(6, 4));
    let folder = folder(&[("a.png", &good), ("b.png", &good), ("c.jpg", b""), ("d.txt", b"a text")]);
    let open = |name: &str| PhotoFolder::open(folder.path().join(name));
    let opened = open("b.png").unwrap();
    assert_eq!((opened.photos.len(), opened.photos[0].name(), opened.skipped.len()), (1, "b.png".to_owned(), 0));
    for (name, reason) in [("c.jpg", "is empty"), ("d.txt", "is not a JPEG, PNG, WebP, BMP, GIF or TIFF image")] {
        let path = folder.path().join(name);
        assert_eq!(open(name).unwrap_err().to_string(), format!("the photo {} {reason}", path.display()));
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let good = png(&photo(20, 20));
    let jpeg = encoded(&photo(64, 64), ImageFormat::Jpeg);
    let folder = folder(&[
        ("a.png", &good),
        ("b.png", &good[..good.len() / 2]),
        ("c.jpg", &jpeg[..jpeg.len() - 100]),
        ("d.jpg", b""),
        ("e.webp", b"<html>404</html>"),
        ("f.heic", b"\0\0\0\x24ftypheic\0\0\0\0mif1heic"),
        ("g.dng", b"II*\0\x08\0\0\0"),
        ("h.txt", b"a text"),
    ]);
    std::os::unix::fs::symlink("nowhere", folder.path().join("i.png")).unwrap();
    let error = PhotoFolder::open(folder.path()).unwrap_err();
    let photos::Error::Unusable { photos, total, .. } = &error else { panic!("{error}") };
    let names: Vec<_> = photos.iter().map(|photo| photo.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["b.png", "c.jpg", "d.jpg", "e.webp", "f.heic", "g.dng", "i.png"]);
    assert_eq!(*total, 8);
    let parts = [
        "7 of the 8 photos in",
        "b.png is damaged",
        "c.jpg is cut off before its end",
        "d.jpg is empty",
        "e.webp is named like an image, but does not begin like one",
        "f.heic is HEIC, which is not read here: save it as JPEG or PNG",
        "g.dng is a camera's raw file",
        "i.png cannot be read: No such file",
    ];
    assert_says(&error.to_string(), &parts);
}

/// A JPEG whose frame header is made to say another size.
fn with_size(jpeg: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut jpeg = jpeg.to_vec();
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

/// A PNG without pixels that says it has so many; its checksum is right.
fn hollow_png(width: u32, height: u32) -> Vec<u8> {
    let mut png = png(&photo(2, 2));
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = png[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    });
    png[29..33].copy_from_slice(&(!checksum).to_be_bytes());
    png
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let large = ["has 16000 x 10000 pixels (160 megapixels)", "more than the 135 megapixels", "save it smaller"];
    assert_says(&message(&[("a.png", &hollow_png(16000, 10000))]), &large);
    let jpeg = encoded(&photo(64, 64), ImageFormat::Jpeg);
    assert_says(&message(&[("a.jpg", &with_size(&jpeg, 16000, 10000))]), &large);
    let mut gif = encoded(&photo(2, 2), ImageFormat::Gif);
    gif[6..10].fill(0xFF);
    assert_says(&message(&[("a.gif", &gif)]), &["has 65535 x 65535 pixels (4295 megapixels)"]);
    let mut bmp = encoded(&photo(2, 2), ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&60_000_u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&60_000_u32.to_le_bytes());
    assert_says(&message(&[("a.bmp", &bmp)]), &["60000 x 60000"]);
    // One pixel more than the limit.
    assert_says(&message(&[("a.png", &hollow_png(1, MAX_PIXELS as u32 + 1))]), &["has 1 x 134217729 pixels"]);
}

#[test]
fn headers_that_lie_are_found_out() {
    let jpeg = encoded(&photo(64, 64), ImageFormat::Jpeg);
    for (width, height) in [(64, 640), (640, 64), (72, 72), (128, 64)] {
        assert_says(&message(&[("a.jpg", &with_size(&jpeg, width, height))]), &["a.jpg is damaged"]);
    }
    assert_says(&message(&[("a.jpg", &with_size(&jpeg, 0, 64))]), &["a.jpg is damaged"]);
    assert_says(&message(&[("a.png", &hollow_png(0, 64))]), &["a.png is damaged"]);
    assert_says(&message(&[("a.png", &hollow_png(300, 300))]), &["a.png is damaged"]);
}

#[test]
fn a_whole_album_is_refused() {
    let small = png(&photo(2, 2));
    let folder = folder(&[("small.png", &small)]);
    // Headers alone decide: 20 photos of 120 megapixels are 2.4 gigapixels.
    for i in 0..20 {
        fs::write(folder.path().join(format!("{i}.png")), hollow_png(12000, 10000)).unwrap();
    }
    let message = PhotoFolder::open(folder.path()).unwrap_err().to_string();
    assert_says(&message, &["the 21 photos in", "2400 megapixels", "more than the 2000 that are read", "choose fewer"]);
}

#[test]
fn what_follows_a_jpegs_end_does_not_matter() {
    let jpeg = encoded(&photo(24, 16), ImageFormat::Jpeg);
    let pixels = single("a.jpg", &jpeg).unwrap().pixels;
    for trailer in [&b"a phone's data \xFF\xD8 and more"[..], &[0; 1000], &jpeg[..50]] {
        assert_eq!(single("a.jpg", &[&jpeg[..], trailer].concat()).unwrap().pixels, pixels);
    }
}

/// Every file of the fixtures, cut off at every tenth of its length: images never come out half grey.
#[test]
fn cut_files_are_damaged() {
    let folder = fixtures().join("formats");
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let (bytes, name) = (fs::read(&path).unwrap(), path.file_name().unwrap().to_str().unwrap());
        // The frames after the first are not read, so their loss is not noticed.
        let needed = if name.starts_with("animated") { bytes.len() / 3 } else { bytes.len() };
        for tenth in 0..10 {
            let cut = &bytes[..needed * tenth / 10];
            assert!(single(name, cut).is_err(), "{name} cut to {} of {} bytes", cut.len(), bytes.len());
        }
    }
}

/// Random damage to every fixture gives an image or a sentence.
#[test]
fn damaged_files_never_panic() {
    let mut state = 1_u64;
    let mut dice = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let damaged = tempfile::tempdir().unwrap();
    for name in ["formats", "exif"] {
        for path in fs::read_dir(fixtures().join(name)).unwrap().map(|entry| entry.unwrap().path()) {
            let whole = fs::read(&path).unwrap();
            let name = Path::new(path.file_name().unwrap()).display().to_string();
            for i in 0..20 {
                let mut bytes = whole.clone();
                for _ in 0..=dice(4) {
                    let at = dice(bytes.len());
                    bytes[at] = dice(256) as u8;
                }
                fs::write(damaged.path().join(format!("{i}-{name}")), bytes).unwrap();
            }
        }
    }
    match PhotoFolder::open(damaged.path()) {
        Err(photos::Error::Unusable { photos, total, .. }) => {
            assert!(photos.len() < total && photos.len() > total / 10);
        }
        other => panic!("{:?}", other.map(|opened| opened.photos.len())),
    }
}

#[test]
fn captions_and_masks_beside_photos_are_not_used_and_one_note_says_so() {
    let image = png(&photo(8, 6));
    let files: [(&str, &[u8]); 12] = [
        ("01.png", &image),
        ("01.txt", b"a dog"),
        ("01-mask.png", &image),
        ("02.png", &image),
        ("02.caption", b"a dog"),
        ("02.mask.png", &image),
        ("02_mask.jpg", &image),
        ("metadata.jsonl", b"{}"),
        ("03.png", &image),
        ("03.txt", b"a dog"),
        // No photo's.
        ("other-mask.png", &image),
        ("notes.txt", b"to do"),
    ];
    let opened = PhotoFolder::open(folder(&files).path()).unwrap();
    let names: Vec<_> = opened.photos.iter().map(photos::Photo::name).collect();
    assert_eq!(names, ["01.png", "02.png", "03.png", "other-mask.png"]);
    let skipped: Vec<_> = opened.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["notes.txt is not a JPEG, PNG, WebP, BMP, GIF or TIFF image"]);
    let note = "captions (01.txt, 02.caption, 03.txt, metadata.jsonl) and masks (01-mask.png, 02.mask.png, 02_mask.jpg) are \
                not used: training uses every photo as a whole, with the configured prompt";
    assert_eq!(opened.notes, [format!("{}; it is ignored", skipped[0]), note.to_owned()]);
}

#[test]
fn a_wholly_transparent_photo_is_refused_unless_its_hidden_colours_are_kept() {
    let nothing = image::RgbaImage::from_pixel(8, 6, image::Rgba([10, 20, 30, 0]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    nothing.write_to(&mut bytes, ImageFormat::Png).unwrap();
    let folder = folder(&[("a.png", &bytes.into_inner()), ("b.png", &png(&photo(8, 6)))]);
    let error = PhotoFolder::open(folder.path()).unwrap_err().to_string();
    assert_says(&error, &["a.png is wholly transparent", "save it without transparency"]);
    let options = photos::Options { background: None, ..photos::Options::default() };
    let opened = PhotoFolder::open_with(folder.path(), &options).unwrap();
    assert_eq!(opened.photos[0].pixels.get_pixel(0, 0).0, [10, 20, 30]);
}

/// The photo as a PNG with this profile.
fn with_profile(profile: &[u8]) -> Vec<u8> {
    use image::ImageEncoder;
    let image = photo(8, 6);
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_icc_profile(profile.to_vec()).unwrap();
    encoder.write_image(image.as_raw(), 8, 6, image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

#[test]
fn a_colour_profile_that_cannot_be_used_is_noted_and_changes_nothing() {
    let profile = |file: &str| {
        use image::ImageDecoder;
        let bytes = fs::read(fixtures().join("profiles").join(file)).unwrap();
        let mut decoder = image::codecs::png::PngDecoder::new(std::io::Cursor::new(bytes)).unwrap();
        decoder.icc_profile().unwrap().unwrap()
    };
    let (colour, grey) = (profile("adobe.png"), profile("grey.png"));
    let mut cmyk = colour.clone();
    cmyk[16..20].copy_from_slice(b"CMYK");
    for (profile, reason) in
        [(b"no profile".to_vec(), "is damaged"), (grey, "is for grey images"), (cmyk, "is for CMYK")]
    {
        let opened = PhotoFolder::open(folder(&[("a.png", &with_profile(&profile))]).path()).unwrap();
        assert_eq!(opened.photos[0].pixels, photo(8, 6));
        assert_eq!(opened.notes.len(), 1);
        assert_says(&opened.notes[0], &["the colour profile in a.png", reason, "save as sRGB"]);
    }
    // Cut off anywhere, and with any byte changed, it panics nowhere.
    for length in (0..colour.len()).step_by(7) {
        let mut changed = colour.clone();
        changed[length] ^= 0xFF;
        for profile in [&colour[..length], &changed] {
            assert!(PhotoFolder::open(folder(&[("a.png", &with_profile(profile))]).path()).is_ok());
        }
    }
}
