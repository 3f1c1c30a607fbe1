//! Everything a user can get wrong is an error that says what, where and what to do.

use std::path::Path;

use golden::fixtures;
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use vae::{AutoencoderKl, Config, Posterior, Tiling};
use weights::Archive;

use crate::common::{CPU, tiny};

/// The whole message, causes included.
fn message<T>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.err().expect("must fail"))
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
}

#[test]
fn images_of_a_wrong_shape_or_type() {
    let (vae, _) = tiny("tiny-sd21");
    let encode = |shape: &[i64]| message(vae.encode(&Tensor::zeros(shape, CPU)));
    assert_says(&encode(&[1, 3, 60, 64]), &["64x60", "multiples of 8", "resize or crop"]);
    assert_says(&encode(&[1, 3, 64, 65]), &["65x64"]);
    assert_says(&encode(&[1, 4, 64, 64]), &["images", "[1, 4, 64, 64]", "3 channels, not 4"]);
    assert_says(&encode(&[3, 64, 64]), &["[3, 64, 64]", "4 dimensions"]);
    assert_says(&encode(&[0, 3, 64, 64]), &["empty"]);
    assert_says(&encode(&[1, 3, 0, 64]), &["empty"]);
    let bytes = Tensor::zeros([1, 3, 64, 64], (Kind::Uint8, CPU.1));
    assert_says(&message(vae.encode(&bytes)), &["Uint8", "floating-point"]);
}

#[test]
fn latents_of_a_wrong_shape_or_type() {
    let (vae, _) = tiny("tiny-sd21");
    let decode = |shape: &[i64]| message(vae.decode(&Tensor::zeros(shape, CPU)));
    assert_says(&decode(&[1, 3, 8, 8]), &["latents", "4 channels, not 3"]);
    assert_says(&decode(&[4, 8, 8]), &["4 dimensions"]);
    assert_says(&decode(&[1, 4, 8, 0]), &["empty"]);
    let integers = Tensor::zeros([1, 4, 8, 8], (Kind::Int64, CPU.1));
    assert_says(&message(vae.decode(&integers)), &["Int64", "floating-point"]);

    let posterior = vae.encode(&Tensor::zeros([1, 3, 16, 16], CPU)).unwrap();
    let noise = Tensor::zeros([1, 4, 1, 1], CPU);
    assert_says(&message(posterior.sample(&noise)), &["noise", "[1, 4, 1, 1]", "[1, 4, 2, 2]"]);
    assert_says(&message(Posterior::from_moments(&Tensor::zeros([1, 7, 2, 2], CPU))), &["[1, 7, 2, 2]"]);
    assert_says(&message(Posterior::from_moments(&Tensor::zeros([8], CPU))), &["[8]"]);
}

#[test]
fn impossible_tiles() {
    let (vae, _) = tiny("tiny-sd21");
    for size in [0, -32, 16, 100] {
        let tiling = Tiling { slice_batch: false, tile_size: Some(size) };
        let parts = [&*format!("tile_size is {size}"), "multiple of 32"];
        assert_says(&message(vae.decode_tiled(&Tensor::zeros([1, 4, 8, 8], CPU), &tiling)), &parts);
        assert_says(&message(vae.encode_tiled(&Tensor::zeros([1, 3, 64, 64], CPU), &tiling)), &parts);
    }
}

#[test]
fn configs_that_are_not_supported() {
    let cases: &[(&str, Value, &[&str])] = &[
        ("_class_name", json!("AutoencoderTiny"), &["AutoencoderTiny", "AutoencoderKL"]),
        ("down_block_types", json!(["AttnDownEncoderBlock2D"]), &["AttnDownEncoderBlock2D", "DownEncoderBlock2D"]),
        ("up_block_types", json!(["AttnUpDecoderBlock2D"]), &["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]),
        ("down_block_types", json!(["DownEncoderBlock2D"]), &["lists 1 blocks", "lists 4"]),
        ("up_block_types", json!([]), &["lists 0 blocks", "lists 4"]),
        ("block_out_channels", json!([]), &["lists 4 blocks", "lists 0"]),
        ("block_out_channels", json!([8, 8, 16, 18]), &["18", "multiple of norm_num_groups 4"]),
        ("block_out_channels", json!([8, 8, 16, -16]), &["-16"]),
        ("block_out_channels", json!("many"), &["invalid type"]),
        ("norm_num_groups", json!(0), &["is 0"]),
        ("latent_channels", json!(0), &["is 0"]),
        ("in_channels", json!(-3), &["is -3"]),
        ("out_channels", json!(0), &["is 0"]),
        ("layers_per_block", json!(0), &["is 0"]),
        ("sample_size", json!(0), &["is 0"]),
        ("sample_size", json!("large"), &["invalid type"]),
        ("sample_size", json!(i64::MAX), &["9223372036854775807", "from 1 to 16384"]),
        ("layers_per_block", json!(1_i64 << 62), &["4611686018427387904", "from 1 to 64: every layer is built"]),
        ("latent_channels", json!(1_i64 << 40), &["from 1 to 32768: a wider layer fits no memory"]),
        ("norm_num_groups", json!(i64::MIN), &["is -9223372036854775808"]),
        ("block_out_channels", json!([8, 8, 16, 1_i64 << 62]), &["4611686018427387904", "from 1 to 32768"]),
        ("scaling_factor", json!(0.0), &["is 0"]),
        ("shift_factor", json!(0.1), &["not supported"]),
        ("latents_mean", json!([0.0]), &["not supported"]),
        ("latents_std", json!([1.0]), &["not supported"]),
        ("act_fn", json!("mish"), &["mish", "silu"]),
    ];
    for (key, value, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut config = tiny_config();
        config[*key] = value.clone();
        write_model(folder.path(), &config);
        let said = message(AutoencoderKl::from_folder(folder.path(), CPU));
        assert_says(&said, &[folder.path().join("config.json").to_str().unwrap()]);
        assert_says(&said, parts);
        // serde names the value, `validate` the key too.
        if !said.contains("invalid type") && *key != "act_fn" {
            assert_says(&said, &[key]);
        }
    }
}

#[test]
fn folders_that_are_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let load = || message(AutoencoderKl::from_folder(path, CPU));
    assert_says(&load(), &["cannot read", "config.json"]);
    std::fs::write(path.join("config.json"), "{").unwrap();
    assert_says(&load(), &["config.json"]);
    std::fs::write(path.join("config.json"), tiny_config().to_string()).unwrap();
    assert_says(&load(), &["no weights in", "diffusion_pytorch_model.safetensors"]);
}

#[test]
fn tensors_that_do_not_fit_are_all_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_model(path, &tiny_config());
    let mut tensors = Archive::open_folder(path).unwrap().tensors().unwrap();
    for name in ["encoder.mid_block.attentions.0.to_q.weight", "decoder.conv_in.bias"] {
        assert!(tensors.remove(name).is_some());
    }
    tensors.insert("quant_conv.bias".to_owned(), Tensor::zeros([6], CPU));
    tensors.insert("decoder.logvar".to_owned(), Tensor::zeros([1], CPU));
    weights::save(&path.join("diffusion_pytorch_model.safetensors"), &tensors).unwrap();
    let said = message(AutoencoderKl::from_folder(path, CPU));
    assert_says(
        &said,
        &[
            path.to_str().unwrap(),
            "4 tensors do not fit",
            "missing (2): decoder.conv_in.bias, encoder.mid_block.attentions.0.to_q.weight",
            "unexpected (1): decoder.logvar",
            "quant_conv.bias has shape [6], the model expects [8]",
        ],
    );
}

#[test]
fn what_the_vae_was_trained_with_is_passed_over_with_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_model(path, &tiny_config());
    let mut tensors = Archive::open_folder(path).unwrap().tensors().unwrap();
    for name in ["loss.logvar", "loss.discriminator.main.0.weight", "model_ema.decay"] {
        tensors.insert(name.to_owned(), Tensor::zeros([1], CPU));
    }
    weights::save(&path.join("diffusion_pytorch_model.safetensors"), &tensors).unwrap();
    let (_, parameters) = AutoencoderKl::from_folder(path, CPU).unwrap();
    assert_says(
        &parameters.notes().join("\n"),
        &["3 tensors", "passed over: loss.discriminator.main.0.weight, loss.logvar, model_ema.decay"],
    );
}

/// A model built from a config in code is checked as well.
#[test]
fn configs_in_code() {
    let config = Config { norm_num_groups: 48, ..Config::sd21() };
    let built = weights::build(&golden::Formula, CPU, |vs| AutoencoderKl::new(vs, &config));
    assert_says(&message(built), &["128", "norm_num_groups 48"]);
    let deep = Config {
        block_out_channels: vec![32; 80],
        down_block_types: vec!["DownEncoderBlock2D".to_owned(); 80],
        up_block_types: vec!["UpDecoderBlock2D".to_owned(); 80],
        ..Config::default()
    };
    assert_says(&message(deep.validate()), &["block_out_channels lists 80"]);
}

fn tiny_config() -> Value {
    let text = std::fs::read_to_string(fixtures().join("tiny-sd21/vae/config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The tiny model's weights beside another config.
fn write_model(folder: &Path, config: &Value) {
    let name = "diffusion_pytorch_model.safetensors";
    std::fs::copy(fixtures().join("tiny-sd21/vae").join(name), folder.join(name)).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}
