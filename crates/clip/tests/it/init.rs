//! New models start as transformers' do (`CLIPPreTrainedModel._init_weights`).

use clip::{ClipConfig, ClipModel, TextConfig, VisionConfig};
use tch::Kind;
use weights::Random;

use crate::common::CPU;

#[test]
fn new_parameters_have_the_spread_of_the_reference() {
    let text_config = TextConfig {
        vocab_size: 200,
        hidden_size: 64,
        intermediate_size: 256,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        ..TextConfig::default()
    };
    let vision_config = VisionConfig {
        hidden_size: 96,
        intermediate_size: 384,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        image_size: 64,
        patch_size: 8,
        ..VisionConfig::default()
    };
    let config = ClipConfig { text_config, vision_config, projection_dim: 128 };
    let (_, parameters) = weights::build(&Random { seed: 1 }, CPU, |vs| ClipModel::new(vs, &config)).unwrap();
    // `model = CLIPModel(config)` in transformers has these standard deviations, up to chance.
    let expected = |name: &str| -> Option<f64> {
        let (dim, layers) = if name.starts_with("text") { (64f64, 3f64) } else { (96f64, 4f64) };
        let depth = (2.0 * layers).sqrt();
        Some(match name.rsplit('.').nth(1)? {
            "token_embedding" | "position_embedding" | "patch_embedding" => 0.02,
            "q_proj" | "k_proj" | "v_proj" | "fc2" => 1.0 / (dim.sqrt() * depth),
            "out_proj" | "text_projection" | "visual_projection" => 1.0 / dim.sqrt(),
            "fc1" => 1.0 / (2.0 * dim).sqrt(),
            _ => return None,
        })
    };
    let mut matrices = 0;
    for (name, tensor) in parameters.iter() {
        let mean = tensor.mean(Kind::Float).double_value(&[]);
        match tensor.dim() {
            0 => assert!((mean - 2.6592).abs() < 1e-6, "{name} is {mean}"),
            1 if name.ends_with("class_embedding") => {
                let spread = tensor.std(false).double_value(&[]) * 96f64.sqrt();
                assert!((0.7..1.4).contains(&spread), "{name} spreads {spread}");
            }
            1 => {
                let value = if name.ends_with("weight") { 1.0 } else { 0.0 };
                assert_eq!(tensor.min().double_value(&[]), value, "{name}");
                assert_eq!(tensor.max().double_value(&[]), value, "{name}");
            }
            _ => {
                let expected = expected(name).unwrap_or_else(|| panic!("{name} is not expected"));
                let ratio = tensor.std(false).double_value(&[]) / expected;
                // Of 4,096 normal numbers or more.
                assert!((0.95..1.05).contains(&ratio) && mean.abs() < 0.1 * expected, "{name}: {ratio}");
                matrices += 1;
            }
        }
    }
    assert_eq!(matrices, 6 * (3 + 4) + 6);
}
