//! Prepared images against transformers' two image processors.

use clip::{ImageProcessor, Resampler, Size};
use golden::{Golden, assert_close, fixtures};
use tch::{Kind, Tensor};

use crate::common::{CPU, image};

const RESAMPLERS: [(&str, Resampler); 2] = [("torchvision", Resampler::Torchvision), ("pillow", Resampler::Pillow)];

fn golden() -> Golden {
    Golden::open("clip/processor.safetensors")
}

/// The bytes after resizing and cropping.
fn bytes(processor: &ImageProcessor, (height, width): (i64, i64)) -> Tensor {
    let raw = ImageProcessor { do_rescale: false, do_normalize: false, ..processor.clone() };
    raw.process_rgb8(&image(height, width), height, width).unwrap()
}

fn assert_equal(name: &str, actual: &Tensor) {
    let expected = golden().get(name).to_kind(Kind::Float);
    assert_eq!(actual.size(), expected.size(), "{name}");
    let wrong = i64::try_from(actual.ne_tensor(&expected).sum(Kind::Int64)).unwrap();
    assert_eq!(wrong, 0, "{name}: {wrong} of {} bytes differ", actual.numel());
}

#[test]
fn images_of_many_sizes_equal_the_reference_to_the_byte() {
    let golden = golden();
    for (name, resampler) in RESAMPLERS {
        let processor = ImageProcessor { resampler, ..ImageProcessor::square(32) };
        let cases: Vec<&str> = golden.names().filter_map(|key| key.strip_prefix(name)?.strip_prefix('.')).collect();
        let sizes: Vec<(i64, i64)> = cases
            .iter()
            .filter_map(|case| case.split_once('x'))
            .filter_map(|(height, width)| Some((height.parse().ok()?, width.parse().ok()?)))
            .collect();
        assert_eq!(sizes.len(), 12);
        for (height, width) in sizes {
            assert_equal(&format!("{name}.{height}x{width}"), &bytes(&processor, (height, width)));
        }
    }
}

#[test]
fn other_rules_equal_the_reference_to_the_byte() {
    for (name, resampler) in RESAMPLERS {
        let processor = ImageProcessor { resampler, ..ImageProcessor::default() };
        let exact = |height, width| Size::Exact { height, width };
        let edge = |shortest_edge| Size::ShortestEdge { shortest_edge };
        let variants = [
            ("exact", ImageProcessor { size: exact(21, 40), crop_size: exact(20, 33), ..processor.clone() }),
            ("bordered", ImageProcessor { size: edge(15), crop_size: exact(20, 23), ..processor.clone() }),
            ("cropped", ImageProcessor { do_resize: false, crop_size: exact(30, 64), ..processor.clone() }),
            ("resized", ImageProcessor { size: edge(17), do_center_crop: false, ..processor.clone() }),
        ];
        for (variant, processor) in variants {
            assert_equal(&format!("{name}.{variant}"), &bytes(&processor, (49, 37)));
        }
    }
}

#[test]
fn normalised_numbers_equal_the_reference() {
    let golden = golden();
    for (name, resampler) in RESAMPLERS {
        let processor = ImageProcessor { resampler, ..ImageProcessor::default() };
        let image = processor.process_rgb8(&image(300, 401), 300, 401).unwrap();
        assert_eq!(image.size(), [3, 224, 224]);
        let image = image.slice(1, None, None, 9).slice(2, None, None, 9);
        golden.assert_close(&format!("{name}.normalized"), &image, 1e-6);
    }
}

#[test]
fn a_tensor_is_prepared_as_its_bytes_are() {
    let processor = ImageProcessor::square(32);
    let expected = processor.process_rgb8(&image(40, 50), 40, 50).unwrap();
    let tensor = Tensor::from_slice(&image(40, 50)).reshape([40, 50, 3]).permute([2, 0, 1]);
    assert_eq!(processor.process(&tensor).unwrap(), expected);
    assert_eq!(processor.process(&tensor.contiguous()).unwrap(), expected);
}

#[test]
fn one_colour_stays_that_colour() {
    for (_, resampler) in RESAMPLERS {
        let processor = ImageProcessor { resampler, do_normalize: false, ..ImageProcessor::square(8) };
        let image = processor.process_rgb8(&[51; 3 * 5 * 70], 70, 5).unwrap();
        assert_close("51 / 255", &image, &(Tensor::ones([3, 8, 8], CPU) * 0.2), 1e-6);
    }
}

#[test]
fn the_file_says_what_to_do() {
    let processor = ImageProcessor::from_folder(&fixtures().join("tiny-clip")).unwrap();
    assert_eq!(processor, ImageProcessor::square(32));
    // As older releases wrote it.
    let old = r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true, "size": 224,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3}"#;
    let old: ImageProcessor = serde_json::from_str(old).unwrap();
    let image = image(230, 250);
    let expected = ImageProcessor::default().process_rgb8(&image, 230, 250).unwrap();
    assert_eq!(old.process_rgb8(&image, 230, 250).unwrap(), expected);
    let written = serde_json::to_string(&processor).unwrap();
    assert_eq!(serde_json::from_str::<ImageProcessor>(&written).unwrap(), processor);
}

#[test]
fn what_cannot_be_prepared_is_an_error() {
    let processor = ImageProcessor::default();
    let message = |image: &Tensor| processor.process(image).unwrap_err().to_string();
    let uint8 = (Kind::Uint8, CPU.1);
    assert!(message(&Tensor::zeros([3, 8, 8], CPU)).contains("the image is Float of shape [3, 8, 8]"));
    assert!(message(&Tensor::zeros([1, 8, 8], uint8)).contains("[3, height, width]; convert it to RGB"));
    assert!(message(&Tensor::zeros([3, 0, 8], uint8)).contains("shape [3, 0, 8]"));
    assert!(message(&Tensor::zeros([3, 1, 3000], uint8)).contains("an image of 3000 x 1 pixels would become"));
    let error = processor.process_rgb8(&[0; 10], 2, 2).unwrap_err().to_string();
    assert!(error.contains("10 bytes"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let error = |text: &str| {
        std::fs::write(folder.path().join("preprocessor_config.json"), text).unwrap();
        format!("{:#}", ImageProcessor::from_folder(folder.path()).unwrap_err())
    };
    let message = error(r#"{"resample": 2}"#);
    assert!(message.contains("preprocessor_config.json") && message.contains("resample is 2"), "{message}");
    let message = error(r#"{"size": {"shortest_edge": 0}}"#);
    assert!(message.contains("size is 0, but must be from 1 to "), "{message}");
    assert!(error(r#"{"image_std": [1, 1, 0]}"#).contains("image_std"));
    assert!(error("{").contains("preprocessor_config.json"));
}
