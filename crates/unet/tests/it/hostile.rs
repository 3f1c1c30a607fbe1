//! Whatever numbers a configuration has: it is refused in a sentence or describes a model, before anything is built.

use proptest::prelude::*;
use serde_json::{Value, json};
use unet::Config;

fn tiny() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-sd21/unet/config.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

const KEYS: [&str; 12] = [
    "sample_size",
    "in_channels",
    "out_channels",
    "freq_shift",
    "layers_per_block",
    "transformer_layers_per_block",
    "attention_head_dim",
    "num_attention_heads",
    "cross_attention_dim",
    "norm_num_groups",
    "norm_eps",
    "block_out_channels",
];

#[test]
fn numbers_that_no_model_can_have_are_named_with_their_bounds() {
    for key in KEYS {
        for value in [i64::MIN, -1, 1 << 40, i64::MAX - 7, i64::MAX] {
            let mut config = tiny();
            config[key] = if key == "block_out_channels" { json!([value, value, value, value]) } else { json!(value) };
            let config: Config = serde_json::from_value(config).unwrap();
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("must be"), "{key} {value}: {error}");
            assert!(error.contains(&value.to_string()) || key == "norm_eps", "{key} {value}: {error}");
        }
    }
    let mut config = tiny();
    for key in ["block_out_channels", "down_block_types", "up_block_types"] {
        let first = config[key][0].clone();
        config[key] = Value::from(vec![first; 100]);
    }
    config["attention_head_dim"] = json!(1);
    let error = serde_json::from_value::<Config>(config).unwrap().validate().unwrap_err().to_string();
    assert!(error.contains("the number of block_out_channels is 100, but must be from 1 to 8"), "{error}");
}

proptest! {
    #[test]
    fn any_numbers(changes in proptest::collection::vec((prop::sample::select(KEYS.to_vec()), any::<i64>(), 0..70_i64), 1..4)) {
        let mut config = tiny();
        for (key, any, small) in changes {
            config[key] = if any % 3 == 0 { json!(any) } else { json!(small) };
        }
        if let Ok(config) = serde_json::from_value::<Config>(config) {
            let _ = config.validate();
        }
    }
}
