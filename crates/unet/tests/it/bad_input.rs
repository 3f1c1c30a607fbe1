//! Each mistake is one sentence that names what was found and what was expected.

use golden::{Formula, fixtures};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use unet::{AttentionMaps, Config, UNet};

const TO: (Kind, Device) = (Kind::Float, Device::Cpu);

fn tiny_config() -> Value {
    weights::read_config(&fixtures().join("tiny-sd21/unet/config.json")).unwrap()
}

/// The message for the tiny config with one key changed, or removed where `value` is null.
fn config_error(key: &str, value: Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut config = tiny_config();
    match value {
        Value::Null => drop(config.as_object_mut().unwrap().remove(key)),
        value => config[key] = value,
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let message = format!("{:#}", UNet::from_folder(folder.path(), TO).unwrap_err());
    assert!(message.contains("config.json"), "{message}");
    message
}

#[test]
fn inputs_that_do_not_fit() {
    let config = Config { block_out_channels: vec![32; 4], ..Config::sd21_base() };
    let config = Config { attention_head_dim: unet::PerBlock::Same(2), ..config };
    let (unet, _) = weights::build(&Formula, TO, |vs| UNet::new(vs, &config)).unwrap();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, TO);
    let (sample, timesteps, text) = (zeros(&[2, 4, 8, 8]), Tensor::from(1_i64), zeros(&[2, 77, 1024]));
    let message = |sample: &Tensor, timesteps: &Tensor, text: &Tensor| {
        unet.forward(sample, timesteps, text, None).unwrap_err().to_string()
    };
    for (found, expected) in [
        (
            message(&sample, &timesteps, &zeros(&[2, 77, 768])),
            "text embeddings have width 768 but this U-Net expects 1024: use the text encoder that belongs to it (768 is \
             Stable Diffusion 1.x, 1024 is 2.x, 2048 is SDXL)",
        ),
        (
            message(&sample, &timesteps, &zeros(&[77, 1024])),
            "text embeddings have shape [77, 1024] but this U-Net expects [batch, positions, 1024]",
        ),
        (
            message(&sample, &timesteps, &zeros(&[3, 77, 1024])),
            "there are text embeddings for 3 prompts but latents of 2 images: give one for each, or one for all",
        ),
        (
            message(&zeros(&[2, 3, 8, 8]), &timesteps, &text),
            "latents have shape [2, 3, 8, 8] but this U-Net expects [batch, 4, height, width]",
        ),
        (
            message(&zeros(&[2, 4, 0, 8]), &timesteps, &text),
            "latents have shape [2, 4, 0, 8] but this U-Net expects [batch, 4, height, width]",
        ),
        (
            message(&sample.to_kind(Kind::Int64), &timesteps, &text),
            "latents have dtype Int64 but must be floating-point numbers",
        ),
        (
            message(&sample, &Tensor::from_slice(&[1_i64, 2, 3]), &text),
            "timesteps have shape [3] but the latents are a batch of 2: give one timestep for all, or one for each",
        ),
    ] {
        assert_eq!(found, expected);
    }
    for token in [77, -1] {
        let mut maps = AttentionMaps::new([5, token]);
        let error = unet.forward(&sample, &timesteps, &text, Some(&mut maps)).unwrap_err().to_string();
        let expected = format!("attention to token position {token} is asked for, but the text has positions 0 to 76");
        assert_eq!(error, expected);
        assert!(maps.maps.is_empty());
    }
}

#[test]
fn a_cache_for_something_else() {
    let config = Config { block_out_channels: vec![32; 4], ..Config::sd21_base() };
    let config = Config { attention_head_dim: unet::PerBlock::Same(2), ..config };
    let build = |config: &Config| weights::build(&Formula, TO, |vs| UNet::new(vs, config)).unwrap().0;
    let deep = Config { transformer_layers_per_block: unet::PerBlock::Same(2), ..config.clone() };
    let (unet, other) = (build(&config), build(&deep));
    let (sample, timesteps) = (Tensor::zeros([2, 4, 8, 8], TO), Tensor::from(1_i64));
    let text = Tensor::zeros([3, 77, 1024], TO);
    let message =
        |cache: unet::KvCache| unet.forward_cached(&sample, &timesteps, &cache, None).unwrap_err().to_string();
    assert_eq!(
        message(unet.project(&text).unwrap()),
        "there are text embeddings for 3 prompts but latents of 2 images: give one for each, or one for all"
    );
    let text = text.narrow(0, 0, 2);
    assert_eq!(
        message(unet.project(&text.to_kind(Kind::BFloat16)).unwrap()),
        "the text was projected in BFloat16 but the latents have dtype Float: project it in the latents' dtype"
    );
    assert_eq!(
        message(other.project(&text).unwrap()),
        "the text was projected by 32 cross-attention layers of another U-Net, but this one has 16: project it by this one"
    );
    let mut texts = [&text, &text, &text.narrow(1, 0, 9), &text].map(Tensor::shallow_clone).into_iter();
    let each = unet.project_each(&mut |_| Ok([texts.next().unwrap(), texts.next().unwrap()]));
    let error = each.unwrap_err().to_string();
    assert!(error.contains("shapes [2, 77, 1024] and [2, 9, 1024]") && error.ends_with("give all of one"), "{error}");
    let error = unet.project(&text.to_kind(Kind::Int64)).unwrap_err().to_string();
    assert_eq!(error, "text embeddings have dtype Int64 but must be floating-point numbers");
    let error = unet.project(&text.narrow(2, 0, 768)).unwrap_err().to_string();
    assert!(error.starts_with("text embeddings have width 768 but this U-Net expects 1024"), "{error}");
}

#[test]
fn architectures_that_are_not_built_here() {
    for (key, value) in [
        ("_class_name", json!("AutoencoderKL")),
        ("act_fn", json!("mish")),
        ("addition_embed_type", json!("text_image")),
        ("attention_type", json!("gated")),
        ("class_embed_type", json!("timestep")),
        ("conv_in_kernel", json!(5)),
        ("cross_attention_norm", json!("layer_norm")),
        ("dropout", json!(0.1)),
        ("dual_cross_attention", json!(true)),
        ("encoder_hid_dim", json!(4096)),
        ("mid_block_scale_factor", json!(2.5)),
        ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("num_class_embeds", json!(1000)),
        ("only_cross_attention", json!([true, true, true, false])),
        ("resnet_time_scale_shift", json!("scale_shift")),
        ("time_cond_proj_dim", json!(256)),
        ("time_embedding_type", json!("fourier")),
    ] {
        let message = config_error(key, value.clone());
        assert!(message.contains(&format!("{key} is {value}, but")), "{message}");
    }
}

#[test]
fn configs_that_do_not_fit_together() {
    for (key, value, expected) in [
        ("block_out_channels", Value::Null, "block_out_channels is missing or empty"),
        ("cross_attention_dim", Value::Null, "cross_attention_dim is missing or not positive"),
        ("block_out_channels", json!([8, 16]), "down_block_types has 4 entries, but block_out_channels has 2"),
        ("down_block_types", json!(vec!["DownBlock2D"; 3]), "down_block_types has 3 entries"),
        ("up_block_types", json!(vec!["AttnUpBlock2D"; 4]), "up_block_types has \"AttnUpBlock2D\", but only UpBlock2D"),
        ("attention_head_dim", json!([1, 2, 2]), "attention_head_dim has 3 entries"),
        ("attention_head_dim", json!(3), "block 0 has 8 channels in block_out_channels"),
        ("num_attention_heads", json!(5), "multiple of its number of attention heads, 5"),
        ("norm_num_groups", json!(3), "must be a multiple of its norm_num_groups, 3"),
        ("norm_num_groups", json!(0), "norm_num_groups is 0"),
        ("layers_per_block", json!(0), "layers_per_block is 0"),
        ("in_channels", json!(-4), "in_channels is -4"),
        ("downsample_padding", json!(2), "downsample_padding is 2"),
        ("freq_shift", json!(4), "freq_shift is 4"),
        ("attention_head_dim", json!("eight"), "expected an integer or a list of one integer for each block"),
        ("flip_sin_to_cos", json!(1), "invalid type: integer `1`, expected a boolean"),
    ] {
        let message = config_error(key, value);
        assert!(message.contains(expected), "{key}: {message}");
    }
}

#[test]
fn a_config_is_written_back_whole() {
    let config: Config = serde_json::from_value(tiny_config()).unwrap();
    config.validate().unwrap();
    assert_eq!(serde_json::to_value(&config).unwrap(), tiny_config());
}

/// Weights of the other version: all tensors that do not fit are in one message.
#[test]
fn weights_of_another_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let file = "diffusion_pytorch_model.safetensors";
    std::fs::copy(fixtures().join("tiny-sd15/unet").join(file), folder.path().join(file)).unwrap();
    std::fs::write(folder.path().join("config.json"), tiny_config().to_string()).unwrap();
    let message = UNet::from_folder(folder.path(), TO).unwrap_err().to_string();
    assert!(message.starts_with("32 tensors do not fit the model's config in "), "{message}");
    assert!(
        message.contains("mid_block.attentions.0.proj_in.weight has shape [16, 16, 1, 1], the model expects [16, 16]"),
        "{message}"
    );
}
