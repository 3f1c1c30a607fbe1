//! The image encoder and the whole of CLIP against transformers.

use clip::{ClipConfig, ClipModel, ClipTextModelWithProjection, ClipVisionModel, ClipVisionModelWithProjection};
use golden::{Golden, assert_close, fixtures};
use tch::{Kind, Tensor};
use weights::{Archive, Parameters, Tensors};

use crate::common::{BOS, CPU, EOS, ids, numbers};

fn golden() -> Golden {
    Golden::open("clip/clip.safetensors")
}

fn load() -> (ClipModel, Parameters) {
    ClipModel::from_folder(&fixtures().join("tiny-clip"), CPU).unwrap()
}

fn inputs() -> (Tensor, Tensor) {
    (ids(&[3, 20], EOS, (BOS, EOS)), numbers("pixel_values", &[2, 3, 32, 32]))
}

#[test]
fn features_and_logits_equal_the_reference() {
    let (model, _) = load();
    let (ids, pixel_values) = inputs();
    let hidden = model.vision_model().forward(&pixel_values).unwrap();
    golden().assert_close("image_hidden_state", &hidden, 1e-5);
    golden().assert_close("image_pooled", &model.vision_model().pooled(&hidden), 1e-5);
    let images = model.image_features(&pixel_values).unwrap();
    let texts = model.text_features(&ids).unwrap();
    golden().assert_close("image_features", &images, 1e-5);
    golden().assert_close("text_features", &texts, 1e-5);
    golden().assert_close("logits_per_image", &model.logits_per_image(&images, &texts).unwrap(), 1e-5);
}

#[test]
fn gradients_of_the_contrastive_loss_equal_the_reference() {
    let (model, parameters) = load();
    parameters.train(|_| true);
    let (ids, pixel_values) = inputs();
    let (images, texts) = (model.image_features(&pixel_values).unwrap(), model.text_features(&ids).unwrap());
    let logits = model.logits_per_image(&images, &texts).unwrap();
    let labels = Tensor::arange(2, (Kind::Int64, logits.device()));
    let loss = (logits.cross_entropy_for_logits(&labels) + logits.tr().cross_entropy_for_logits(&labels)) / 2.0;
    golden().assert_close("loss", &loss, 1e-5);
    loss.backward();
    let golden = golden();
    let names: Vec<&str> = golden.names().filter_map(|name| name.strip_prefix("gradient.")).collect();
    assert_eq!(names.len(), 6);
    for name in names {
        golden.assert_close(&format!("gradient.{name}"), &parameters.get(name).unwrap().grad(), 1e-5);
    }
}

#[test]
fn a_batch_equals_its_images_alone() {
    let (model, _) = load();
    let (_, pixel_values) = inputs();
    let together = model.image_features(&pixel_values).unwrap();
    for i in 0..2 {
        let alone = model.image_features(&pixel_values.narrow(0, i, 1)).unwrap();
        assert_close("alone", &alone, &together.narrow(0, i, 1), 1e-5);
    }
}

/// bf16 has 8 significant bits, 2⁻⁹ = 0.002 a rounding; two layers of them stay below 0.03.
#[test]
fn bf16_is_close_to_f32() {
    let (model, _) = load();
    let features = model.image_features(&inputs().1.to_kind(Kind::BFloat16)).unwrap();
    assert_eq!(features.kind(), Kind::BFloat16);
    golden().assert_close("image_features", &features, 0.03);
}

/// One tower of the tiny CLIP as a folder of its own, as `save_pretrained` of the part would write it.
fn tower(prefixes: &[&str], key: &str, bare: bool) -> tempfile::TempDir {
    let whole = fixtures().join("tiny-clip");
    let config: serde_json::Value = weights::read_config(&whole.join("config.json")).unwrap();
    let mut config = config[key].clone();
    config["projection_dim"] = 24.into();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let tensors = Archive::open_folder(&whole).unwrap().tensors().unwrap();
    let kept = tensors.into_iter().filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    let renamed = kept.map(|(name, tensor)| match name.strip_prefix(prefixes[0]) {
        Some(rest) if bare => (rest.to_owned(), tensor),
        _ => (name, tensor),
    });
    let mut tensors: Tensors = renamed.collect();
    if !bare {
        // A buffer that published files have.
        tensors.insert(format!("{}embeddings.position_ids", prefixes[0]), Tensor::arange(17, (Kind::Int64, CPU.1)));
    }
    weights::save(&folder.path().join("model.safetensors"), tensors).unwrap();
    folder
}

#[test]
fn one_tower_is_the_same_alone() {
    let (ids, pixel_values) = inputs();
    let folder = tower(&["text_model.", "text_projection."], "text_config", false);
    let (text, _) = ClipTextModelWithProjection::from_folder(folder.path(), CPU).unwrap();
    golden().assert_close("text_features", &text.text_features(&ids).unwrap(), 1e-5);

    let folder = tower(&["vision_model.", "visual_projection."], "vision_config", false);
    let (vision, _) = ClipVisionModelWithProjection::from_folder(folder.path(), CPU).unwrap();
    golden().assert_close("image_features", &vision.image_features(&pixel_values).unwrap(), 1e-5);

    for bare in [false, true] {
        let folder = tower(&["vision_model."], "vision_config", bare);
        let (vision, parameters) = ClipVisionModel::from_folder(folder.path(), CPU).unwrap();
        golden().assert_close("image_hidden_state", &vision.forward(&pixel_values).unwrap(), 1e-5);
        assert_eq!(parameters.get("embeddings.class_embedding").is_some(), bare);
    }
}

#[test]
fn the_known_models_have_as_many_parameters_as_the_reference() {
    let path = fixtures().join("clip/counts.json");
    let counts: std::collections::BTreeMap<String, usize> = weights::read_config(&path).unwrap();
    for (name, config) in [
        ("vit_b32", ClipConfig::vit_b32()),
        ("vit_b16", ClipConfig::vit_b16()),
        ("vit_l14", ClipConfig::vit_l14()),
        ("open_clip_h14", ClipConfig::open_clip_h14()),
    ] {
        let (_, parameters) = weights::build(&golden::Hollow, CPU, |vs| ClipModel::new(vs, &config)).unwrap();
        assert_eq!(parameters.count(), counts[name], "{name}");
    }
    for (name, config) in [("sd21", clip::TextConfig::sd21()), ("sd15", clip::TextConfig::sd15())] {
        let (_, parameters) = weights::build(&golden::Hollow, CPU, |vs| clip::ClipTextModel::new(vs, &config)).unwrap();
        assert_eq!(parameters.count(), counts[name], "{name}");
    }
    assert_eq!(counts["sd21"], 340_387_840);
}

#[test]
fn a_config_is_written_as_it_is_read() {
    let config = ClipConfig::open_clip_h14();
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written["model_type"], "clip");
    assert_eq!(written["vision_config"]["hidden_act"], "gelu");
    assert_eq!(serde_json::from_value::<ClipConfig>(written).unwrap(), config);
}
