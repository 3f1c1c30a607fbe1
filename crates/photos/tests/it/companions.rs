//! Folders as users of kohya's scripts and of OneTrainer have them: what is understood is used or noted, and never learned as a photo.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage, imageops};
use photos::{Augmentation, AugmentedCrop, Crop, Mask, Options, Photo, PhotoFolder, Shapes, contact_sheet};

use crate::common::{encoded, fixtures, folder, photo};

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn captions() -> Options {
    Options { captions: true, ..Options::default() }
}

fn masks() -> Options {
    Options { masks: true, ..Options::default() }
}

fn names(opened: &PhotoFolder) -> Vec<String> {
    opened.photos.iter().map(Photo::name).collect()
}

#[track_caller]
fn message(files: &[(&str, &[u8])], options: &Options) -> String {
    let said = PhotoFolder::open_with(folder(files).path(), options).unwrap_err().to_string();
    assert!(!said.contains('\n'), "{said:?}");
    said
}

/// kohya's: `train/10_sks dog/*` with captions, a cache of latents beside them.
fn kohyas(root: &Path, folders: &[(&str, &[&str])]) {
    for (name, photos) in folders {
        let inner = root.join(name);
        fs::create_dir(&inner).unwrap();
        for file in *photos {
            fs::write(inner.join(format!("{file}.png")), png(photo(12, 10))).unwrap();
            fs::write(inner.join(format!("{file}.txt")), format!("sks dog, {file}, outdoors, solo")).unwrap();
            fs::write(inner.join(format!("{file}_0012x0010_sd.npz")), b"PK\x03\x04").unwrap();
        }
    }
}

#[test]
fn photos_in_folders_of_repeats_are_found_and_repeats_are_noted() {
    let root = tempfile::tempdir().unwrap();
    kohyas(root.path(), &[("10_sks dog", &["a", "b"]), ("2_sks dog", &["c"])]);
    fs::write(root.path().join("sample_prompts.txt"), "sks dog").unwrap();
    let opened = PhotoFolder::open(root.path()).unwrap();
    assert_eq!(names(&opened), ["a.png", "b.png", "c.png"]);
    assert_eq!(opened.skipped[0].path.file_name().unwrap(), "sample_prompts.txt");
    assert_eq!(opened.skipped.len(), 4);
    let said = |words: &[&str]| opened.notes.iter().any(|note| words.iter().all(|word| note.contains(word)));
    assert!(said(&["10_sks dog, 2_sks dog", "neither the repeats nor the words are used"]), "{:?}", opened.notes);
    assert!(said(&["captions (a.txt, b.txt, c.txt) are not used"]), "{:?}", opened.notes);
    let with = PhotoFolder::open_with(root.path(), &captions()).unwrap();
    let texts: Vec<_> = with.photos.iter().map(|photo| photo.caption.as_ref().unwrap().text.as_str()).collect();
    assert_eq!(texts, ["sks dog, a, outdoors, solo", "sks dog, b, outdoors, solo", "sks dog, c, outdoors, solo"]);

    // One of them by its name.
    let one = PhotoFolder::open(root.path().join("10_sks dog")).unwrap();
    assert_eq!(names(&one), ["a.png", "b.png"]);
    assert!(one.notes.iter().any(|note| note.contains("10_sks dog") && note.contains("neither the repeats")));
}

#[test]
fn folders_of_repeats_of_several_subjects_are_not_learned_as_one() {
    let root = tempfile::tempdir().unwrap();
    kohyas(root.path(), &[("10_sks dog", &["a"]), ("10_xyz cat", &["b"])]);
    let said = PhotoFolder::open(root.path()).unwrap_err().to_string();
    assert!(said.contains("show different things (10_sks dog, 10_xyz cat): name one of them"), "{said}");
    // Photos of its own are what the folder holds.
    fs::write(root.path().join("own.png"), png(photo(12, 10))).unwrap();
    let opened = PhotoFolder::open(root.path()).unwrap();
    assert_eq!(names(&opened), ["own.png"]);
    assert!(opened.skipped.iter().all(|skipped| skipped.reason == "is a sub-folder") && opened.skipped.len() == 2);
}

#[test]
fn what_lies_beside_photos_changes_no_photo() {
    let (image, alpha) = (png(photo(12, 10)), png(RgbaImage::from_pixel(12, 10, Rgba([9, 8, 7, 100]))));
    let bare = folder(&[("a.png", &image), ("b.png", &alpha)]);
    let files: [(&str, &[u8]); 9] = [
        ("a.png", &image),
        ("a.txt", b"a dog"),
        ("a-masklabel.png", &image),
        ("a-condlabel.png", &image),
        ("b.png", &alpha),
        ("b.mask", &image),
        ("gone-masklabel.png", &image),
        ("b.npz", b"PK\x03\x04"),
        ("meta_lat.json", b"{}"),
    ];
    let full = folder(&files);
    let [bare, full] = [&bare, &full].map(|folder| PhotoFolder::open(folder.path()).unwrap());
    assert_eq!(names(&full), names(&bare));
    for (a, b) in bare.photos.iter().zip(&full.photos) {
        assert_eq!((&a.sha256, &a.pixels), (&b.sha256, &b.pixels));
        assert!(b.caption.is_none() && b.mask.is_none());
    }
    assert!(bare.notes.is_empty());
    let notes = [
        "b.npz is not a JPEG, PNG, WebP, BMP, GIF or TIFF image; it is ignored",
        "captions (a.txt, meta_lat.json) and masks (a-masklabel.png, b.mask) are not used: training uses every photo as a whole, \
         with the configured prompt",
        "masks without their photos are ignored: gone-masklabel.png",
        "images to condition on are not used: a-condlabel.png",
    ];
    assert_eq!(full.notes, notes);
}

#[test]
fn a_caption_is_the_first_line_of_its_file_whoever_has_saved_it() {
    let image = png(photo(12, 10));
    let files: [(&str, &[u8]); 12] = [
        ("a.png", &image),
        ("a.txt", b"\xEF\xBB\xBF\r\n  a [V] dog,\toutdoors,  solo \r\nanother line\r\n"),
        ("b.jpg", &encoded(&photo(12, 10), ImageFormat::Jpeg)),
        ("b.caption", "a [V] dog in a café".as_bytes()),
        ("c.webp", &encoded(&photo(12, 10), ImageFormat::WebP)),
        ("c.TXT", b"one"),
        ("c.caption", b"two"),
        ("d.png", &image),
        ("d.txt", b"\ntext"),
        ("d.tags", b"dog"),
        ("metadata.jsonl", b"{}"),
        ("d-mask.png", &image),
    ];
    let folder = folder(&files);
    let opened = PhotoFolder::open_with(folder.path(), &captions()).unwrap();
    let texts: Vec<_> = opened.photos.iter().map(|photo| photo.caption.as_ref().unwrap().text.as_str()).collect();
    assert_eq!(texts, ["a [V] dog, outdoors, solo", "a [V] dog in a café", "one", "text"]);
    let notes = [
        "captions (c.caption, d.tags, metadata.jsonl) and masks (d-mask.png) are not used",
        "of captions with several lines the first is used: a.txt",
    ];
    assert_eq!(opened.notes, notes);
    // A photo alone has its own.
    let alone = PhotoFolder::open_with(folder.path().join("d.png"), &captions()).unwrap();
    assert_eq!(alone.photos[0].caption.as_ref().unwrap().text, "text");
    assert_eq!(PhotoFolder::open(folder.path().join("d.png")).unwrap().notes, [""; 0]);
}

#[test]
fn captions_that_cannot_be_used_are_named_all_at_once() {
    let image = png(photo(12, 10));
    let utf16: Vec<u8> = "a dog".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&[0xFF, 0xFE], &utf16[..]].concat();
    let files: [(&str, &[u8]); 9] = [
        ("a.png", &image),
        ("b.png", &image),
        ("b.txt", b" \r\n\xC2\xA0\n"),
        ("c.png", &image),
        ("c.txt", &utf16),
        ("d.png", &image),
        ("d.txt", &marked),
        ("e.png", &image),
        ("e.txt", b"fine"),
    ];
    let said = message(&files, &captions());
    for words in [
        "4 of the 5 photos in",
        "a.png has no caption: write a.txt beside it",
        "b.txt is empty",
        "c.txt is no UTF-8 text",
        "d.txt is no UTF-8 text",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn masks_are_found_by_their_names_or_are_the_alpha_channel() {
    let grey = GrayImage::from_fn(12, 10, |x, y| Luma([(x * 20 + y) as u8]));
    let other = GrayImage::from_pixel(12, 10, Luma([3]));
    let transparent = RgbaImage::from_fn(12, 10, |x, _| Rgba([1, 2, 3, (x * 20) as u8]));
    let opaque = RgbaImage::from_pixel(12, 10, Rgba([1, 2, 3, 255]));
    let [image, mask, other, transparent, opaque] =
        [png(photo(12, 10)), png(grey.clone()), png(other), png(transparent.clone()), png(opaque)];
    let files: [(&str, &[u8]); 10] = [
        ("a.png", &image),
        ("a-masklabel.png", &mask),
        ("a_mask.png", &other),
        ("b.png", &transparent),
        ("c.png", &opaque),
        ("d.png", &transparent),
        ("d.mask", &mask),
        ("e.png", &image),
        ("e.mask.png", &mask),
        ("e.txt", b"a dog"),
    ];
    let folder = folder(&files);
    let opened = PhotoFolder::open_with(folder.path(), &masks()).unwrap();
    assert_eq!(names(&opened), ["a.png", "b.png", "c.png", "d.png", "e.png"]);
    let mask = |n: usize| opened.photos[n].mask.as_ref().map(|mask| &mask.pixels);
    let alpha = GrayImage::from_fn(12, 10, |x, _| Luma([(x * 20) as u8]));
    assert_eq!(
        [mask(0), mask(1), mask(2), mask(3), mask(4)],
        [Some(&grey), Some(&alpha), None, Some(&grey), Some(&grey)]
    );
    // The photo's pixels are the same, with white where it is transparent.
    assert_eq!(opened.photos[1].pixels, PhotoFolder::open(folder.path()).unwrap().photos[1].pixels);
    let notes =
        ["captions (e.txt) and masks (a_mask.png) are not used", "photos without a mask count as a whole: c.png"];
    assert_eq!(opened.notes, notes);
}

#[test]
fn masks_that_cannot_be_used_are_named() {
    let image = png(photo(12, 10));
    let [small, turned] = [png(photo(6, 5)), png(photo(10, 12))];
    let files: [(&str, &[u8]); 8] = [
        ("a.png", &image),
        ("a-masklabel.png", &small),
        ("b.png", &image),
        ("b_mask.png", &turned),
        ("c.png", &image),
        ("c-mask.png", b"no image"),
        ("d-masklabel.png", &image),
        ("e.png", &image),
    ];
    let said = message(&files, &masks());
    for words in [
        "a-masklabel.png has 6 x 5 pixels, but its photo a.png has 12 x 10 when it is upright",
        "b_mask.png has 10 x 12 pixels",
        "c-mask.png is named like an image, but does not begin like one",
        "d-masklabel.png is a mask without its photo",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let said = message(&[("e.png", &image), ("e.txt", b"a dog")], &masks());
    assert!(said.contains("no photo in") && said.contains("NAME-masklabel.png"), "{said}");
    let folder = folder(&[("e.png", &image)]);
    let said = PhotoFolder::open_with(folder.path().join("e.png"), &masks()).unwrap_err().to_string();
    assert!(said.contains("no photo in"), "{said}");
}

/// A mask is upright as its photo is, and is shrunk with it.
#[test]
fn a_mask_follows_its_photos_orientation_and_size() {
    for orientation in 1..=8 {
        let stored = fs::read(fixtures().join(format!("exif/{orientation}.png"))).unwrap();
        let upright = image::open(fixtures().join("exif/upright.png")).unwrap().into_luma8();
        let folder = folder(&[("a.png", &stored), ("a-masklabel.png", &stored)]);
        let opened = PhotoFolder::open_with(folder.path(), &masks()).unwrap();
        assert_eq!(opened.photos[0].mask.as_ref().unwrap().pixels, upright, "{orientation}");
    }
    let folder =
        folder(&[("a.png", &png(photo(60, 40))), ("a-mask.png", &png(GrayImage::from_pixel(60, 40, Luma([77]))))]);
    let options = Options { max_short_side: Some(20), ..masks() };
    let opened = PhotoFolder::open_with(folder.path(), &options).unwrap();
    assert_eq!(opened.photos[0].pixels.dimensions(), (30, 20));
    assert_eq!(opened.photos[0].mask.as_ref().unwrap().pixels, GrayImage::from_pixel(30, 20, Luma([77])));
}

fn mask(pixels: GrayImage) -> Mask {
    Mask { path: "a-masklabel.png".into(), sha256: String::new(), pixels }
}

#[test]
fn a_mask_is_turned_mirrored_and_cut_as_its_photo_is() {
    // A photo that is its own mask: grey, so that both are resized alike.
    let grey = GrayImage::from_fn(50, 40, |x, y| Luma([(x * 5 + (y * y) / 8) as u8]));
    let photo = DynamicImage::ImageLuma8(grey.clone()).into_rgb8();
    let augmentation = Augmentation { rotation_p: 0.5, flip_p: 0.5, resolution: 24, ..Augmentation::default() };
    for seed in 0..20 {
        let crop = Crop::from(augmentation.sample_shape(seed, 50, 40, [32, 16]));
        let rendered = crop.render(&photo);
        let mask = mask(grey.clone());
        let of_mask = mask.render(&crop);
        assert!(rendered.pixels().zip(of_mask.pixels()).all(|(photo, mask)| photo.0 == [mask.0[0]; 3]), "seed {seed}");
        // A cell is the mean of its pixels.
        let cells = mask.cells(&crop, 8);
        assert_eq!(cells.len(), 4 * 2);
        let mean =
            imageops::crop_imm(&of_mask, 24, 8, 8, 8).to_image().pixels().map(|p| f64::from(p.0[0])).sum::<f64>();
        assert!((f64::from(cells[7]) - mean / 64.0 / 255.0).abs() < 1e-6);
    }
    // What a rotation brings in from outside is not of the subject.
    let all = mask(GrayImage::from_pixel(64, 64, Luma([255])));
    let crop = AugmentedCrop { angle: Some(45.0), flip: false, left: 0, top: 0, width: 90, height: 90 };
    let cells = all.cells(&crop.into(), 10);
    assert_eq!((cells[0], cells[4 * 9 + 4]), (0.0, 1.0));
}

#[test]
fn crops_of_other_shapes_cover_them_and_squares_are_as_before() {
    let augmentation = Augmentation { rotation_p: 0.5, resolution: 64, ..Augmentation::default() };
    for (seed, (width, height)) in (0..60).zip([(100, 64), (64, 100), (70, 70), (9, 200)].into_iter().cycle()) {
        assert_eq!(augmentation.sample(seed, width, height), augmentation.sample_shape(seed, width, height, [64, 64]));
        for shape in [[48, 80], [80, 48], [32, 128]] {
            let crop = augmentation.sample_shape(seed, width, height, shape);
            let white = RgbImage::from_pixel(width, height, Rgb([255; 3]));
            let rendered = crop.render(&white);
            assert_eq!([rendered.width(), rendered.height()], shape);
            assert!(crop.angle.is_some() || rendered.pixels().all(|pixel| pixel.0 == [255; 3]));
        }
    }
    // A photo of the shape is the crop.
    let photo = photo(48, 80);
    assert_eq!(Augmentation::none(64).sample_shape(0, 48, 80, [48, 80]).render(&photo), photo);
    assert_eq!(Shapes::new(64, 16).nearest(48, 80), [48, 80]);
}

#[test]
fn a_contact_sheet_darkens_what_is_outside_of_a_mask_and_keeps_shapes() {
    let mut photo = Photo::new("a.png", RgbImage::from_pixel(80, 48, Rgb([200; 3])));
    photo.mask = Some(mask(GrayImage::from_fn(80, 48, |x, _| Luma([if x < 40 { 255 } else { 0 }]))));
    let crop = Crop::from(Augmentation::none(64).sample_shape(0, 80, 48, [80, 48]));
    let sheet = contact_sheet(&[(&photo, crop.clone())], 1, 0).draw();
    assert_eq!((sheet.get_pixel(8 + 10, 8 + 5).0, sheet.get_pixel(8 + 70, 8 + 5).0), ([200; 3], [50; 3]));
    assert_eq!(contact_sheet(&[(&photo, crop)], 1, 40).draw().width(), 8 + 40 + 8);
}
