//! What cannot work is refused in one sentence that names it.

use std::fs;
use std::path::Path;

use clip::{ClipModel, ClipTextModel, ClipVisionModel, TextConfig, VisionConfig};
use golden::fixtures;
use tch::{Kind, Tensor};
use weights::{Archive, Tensors};

use crate::common::{BOS, CPU, EOS, ids};

fn text_encoder() -> ClipTextModel {
    ClipTextModel::from_folder(&fixtures().join("tiny-sd21/text_encoder"), CPU).unwrap().0
}

fn assert_says<T: std::fmt::Debug>(result: anyhow::Result<T>, parts: &[&str]) {
    let message = format!("{:#}", result.unwrap_err());
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn ids_that_are_no_tokens() {
    let model = text_encoder();
    let says = |ids: &[i64], parts: &[&str]| assert_says(model.forward(&Tensor::from_slice(ids).unsqueeze(0)), parts);
    says(&[BOS, 1200, EOS], &["token id 1200", "vocabulary of 1200 tokens (0 of them added)"]);
    says(&[BOS, -1, EOS], &["token id -1", "vocabulary of 1200 tokens"]);
    says(&[7; 78], &["78 tokens", "77 positions"]);
    says(&[], &["shape [1, 0]"]);
    assert_says(model.forward(&Tensor::from_slice(&[BOS, EOS])), &["shape [2]", "[batch, positions]"]);
    assert_says(model.forward(&Tensor::ones([1, 3], CPU)), &["Float of shape [1, 3]", "integers"]);
    let model = model.with_extra_tokens(&Tensor::ones([2, 32], CPU)).unwrap();
    let result = model.forward(&Tensor::from_slice(&[BOS, 1202, EOS]).unsqueeze(0));
    assert_says(result, &["token id 1202", "vocabulary of 1202 tokens (2 of them added)"]);
}

#[test]
fn embeddings_of_another_model() {
    let model = text_encoder();
    assert_says(model.forward_embeddings(&Tensor::ones([1, 77, 768], CPU)), &["width 768", "hidden_size is 32"]);
    assert_says(model.forward_embeddings(&Tensor::ones([77, 32], CPU)), &["shape [77, 32]"]);
    assert_says(model.forward_embeddings(&Tensor::ones([1, 80, 32], CPU)), &["80 tokens", "77 positions"]);
    assert_says(text_encoder().with_extra_tokens(&Tensor::ones([1, 768], CPU)), &["shape [1, 768]", "[tokens, 32]"]);
    let ids = ids(&[3], 0, (BOS, EOS));
    assert_says(model.pooled(&Tensor::ones([2, 77, 32], CPU), &ids), &["[2, 77, 32]", "[1, 77]"]);
}

#[test]
fn a_text_without_an_end() {
    let (model, _) = ClipTextModel::from_folder(&fixtures().join("tiny-sd15/text_encoder"), CPU).unwrap();
    let ids = Tensor::from_slice2(&[[BOS, 5, EOS], [BOS, 5, 6]]);
    let hidden = model.forward(&ids).unwrap();
    assert_says(model.pooled(&hidden, &ids), &["no end-of-text token 1199", "eos_token_id"]);
}

#[test]
fn images_of_another_size_and_unprepared_ones() {
    let (model, _) = ClipModel::from_folder(&fixtures().join("tiny-clip"), CPU).unwrap();
    let says = |pixels: Tensor, parts: &[&str]| assert_says(model.image_features(&pixels), parts);
    says(Tensor::zeros([1, 3, 224, 224], CPU), &["[1, 3, 224, 224]", "[batch, 3, 32, 32]", "preprocessor_config.json"]);
    says(Tensor::zeros([3, 32, 32], CPU), &["[3, 32, 32]"]);
    says(Tensor::zeros([1, 3, 32, 32], (Kind::Uint8, CPU.1)), &["Uint8"]);
    let (images, texts) = (Tensor::ones([2, 24], CPU), Tensor::ones([2, 32], CPU));
    assert_says(model.logits_per_image(&images, &texts), &["[2, 24]", "[2, 32]"]);
}

/// A copy of a folder with a config, and maybe tensors, changed.
fn changed(
    from: &Path,
    config: impl Fn(&mut serde_json::Map<String, serde_json::Value>),
    keep: impl Fn(&str) -> bool,
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut json: serde_json::Value = weights::read_config(&from.join("config.json")).unwrap();
    config(json.as_object_mut().unwrap());
    fs::write(folder.path().join("config.json"), json.to_string()).unwrap();
    let tensors = Archive::open_folder(from).unwrap().tensors().unwrap();
    let kept: Tensors = tensors.into_iter().filter(|(name, _)| keep(name)).collect();
    weights::save(&folder.path().join("model.safetensors"), kept).unwrap();
    folder
}

#[test]
fn a_clip_without_a_tower() {
    let whole = fixtures().join("tiny-clip");
    let load = |folder: &Path| ClipModel::from_folder(folder, CPU);
    for (key, prefix, tower) in
        [("vision_config", "vision_model.", "image encoder"), ("text_config", "text_model.", "text encoder")]
    {
        let config = |json: &mut serde_json::Map<_, _>| drop(json.remove(key));
        let folder = changed(&whole, config, |_| true);
        assert_says(load(folder.path()), &["config.json", &format!("lacks the {tower} ({key})")]);
        let folder = changed(&whole, |_| (), |name| !name.starts_with(prefix));
        assert_says(load(folder.path()), &[folder.path().to_str().unwrap(), &format!("lacks the {tower} ({prefix}*)")]);
    }
}

/// Some text encoders' files hold the whole CLIP; that of Stable Diffusion 1.x holds the numbers of the positions.
#[test]
fn what_belongs_to_the_rest_of_clip_is_passed_over_with_a_note() {
    let notes = |extra: &[&str]| {
        let folder = changed(&fixtures().join("tiny-sd21/text_encoder"), |_| (), |_| true);
        let file = folder.path().join("model.safetensors");
        let mut tensors = Archive::open(&file).unwrap().tensors().unwrap();
        tensors.extend(extra.iter().map(|name| ((*name).to_owned(), Tensor::ones([1], CPU))));
        weights::save(&file, &tensors).unwrap();
        ClipTextModel::from_folder(folder.path(), CPU).map(|(_, parameters)| parameters.notes().to_vec())
    };
    assert_eq!(notes(&[]).unwrap(), [""; 0]);
    let known =
        ["embeddings.position_ids", "logit_scale", "text_projection.weight", "vision_model.post_layernorm.weight"];
    let found = notes(&known).unwrap();
    assert!(found[0].contains("4 tensors") && found[0].contains("embeddings.position_ids, logit_scale"), "{found:?}");
    let error = notes(&["vision_tower.weight"]).unwrap_err().to_string();
    assert!(error.contains("unexpected (1): vision_tower.weight"), "{error}");
}

#[test]
fn a_clip_without_its_scale() {
    let folder = changed(&fixtures().join("tiny-clip"), |_| (), |name| name != "logit_scale");
    let message = ClipModel::from_folder(folder.path(), CPU).unwrap_err().to_string();
    assert!(message.contains("missing (1): logit_scale"), "{message}");
}

#[test]
fn a_folder_of_another_model() {
    let (text, whole) = (fixtures().join("tiny-sd21/text_encoder"), fixtures().join("tiny-clip"));
    assert_says(
        ClipModel::from_folder(&text, CPU),
        &["config.json is of a model of type clip_text_model", "type clip is needed"],
    );
    assert_says(ClipTextModel::from_folder(&whole, CPU), &["of type clip,", "type clip_text_model is needed"]);
    assert_says(ClipVisionModel::from_folder(&text, CPU), &["of type clip_text_model"]);
    let folder = tempfile::tempdir().unwrap();
    assert_says(ClipTextModel::from_folder(folder.path(), CPU), &["cannot read", "config.json"]);
    fs::write(folder.path().join("config.json"), r#"{"_class_name": "AutoencoderKL"}"#).unwrap();
    assert_says(ClipTextModel::from_folder(folder.path(), CPU), &["of type AutoencoderKL"]);
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert_says(ClipTextModel::from_folder(folder.path(), CPU), &["lacks the key model_type"]);
}

#[test]
fn configs_that_describe_no_model() {
    let text = fixtures().join("tiny-sd21/text_encoder");
    let says = |key: &str, value: serde_json::Value, parts: &[&str]| {
        let folder = changed(&text, |json| drop(json.insert(key.to_owned(), value.clone())), |_| true);
        assert_says(ClipTextModel::from_folder(folder.path(), CPU), parts);
    };
    says("num_attention_heads", 5.into(), &["config.json", "hidden_size 32", "num_attention_heads 5"]);
    says("num_attention_heads", 0.into(), &["num_attention_heads is 0"]);
    says("vocab_size", (-1).into(), &["vocab_size is -1"]);
    for key in ["vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "num_hidden_layers"] {
        for value in [i64::MIN, 1 << 40, i64::MAX] {
            says(key, value.into(), &["config.json", &format!("{key} is {value}, but must be from 1 to ")]);
        }
    }
    says("layer_norm_eps", 1e308.into(), &["layer_norm_eps is 1", "from 0 to 1"]);
    says("hidden_act", "relu".into(), &["config.json", "unknown variant `relu`"]);
    says("hidden_size", "wide".into(), &["config.json", "\"wide\""]);
    let small = VisionConfig { image_size: 8, patch_size: 16, ..VisionConfig::default() };
    assert_says(small.validate(), &["image_size is 8", "patch_size 16"]);
}

#[test]
fn weights_of_another_config_are_all_listed() {
    let text = fixtures().join("tiny-sd15/text_encoder");
    let folder = changed(
        &text,
        |json| drop(json.insert("num_hidden_layers".to_owned(), 2.into())),
        |name| !name.ends_with("final_layer_norm.bias"),
    );
    let message = ClipTextModel::from_folder(folder.path(), CPU).unwrap_err().to_string();
    assert!(message.contains("missing (1): text_model.final_layer_norm.bias"), "{message}");
    assert!(message.contains("unexpected (16): text_model.encoder.layers.2."), "{message}");
    assert!(!message.contains("position_ids"), "{message}");
}

#[test]
fn defaults_are_those_of_transformers() {
    let config: TextConfig = serde_json::from_str("{}").unwrap();
    assert_eq!((config.hidden_size, config.num_attention_heads, config.eos_token_id), (512, 8, 49407));
    let config: VisionConfig = serde_json::from_str("{}").unwrap();
    assert_eq!((config.hidden_size, config.image_size, config.patch_size), (768, 224, 32));
}
