//! Whatever numbers a training configuration has: it is refused in a sentence before anything is loaded.

use runs::{ConfigLayers, TrainConfig};
use serde_json::{Value, json};

fn whole() -> Value {
    let config = TrainConfig { category: "dog".to_owned(), ..TrainConfig::paper() };
    let mut value = serde_json::to_value(config).unwrap();
    value["prior"] = json!({});
    value["ema"] = json!({ "decay": 0.9 });
    value["max_grad_norm"] = json!(1.0);
    value["snr_gamma"] = json!(5.0);
    let config: TrainConfig = serde_json::from_value(value).unwrap();
    config.validate().unwrap();
    serde_json::to_value(config).unwrap()
}

/// The paths of all numbers.
fn numbers(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                numbers(value, &inner, found);
            }
        }
        Value::Number(_) => found.push(path.to_owned()),
        _ => {}
    }
}

/// What becomes of the configuration with another value at a path.
fn check(path: &str, value: &Value) -> anyhow::Result<()> {
    let mut config = whole();
    *config.pointer_mut(&format!("/{}", path.replace('.', "/"))).unwrap() = value.clone();
    serde_json::from_value::<TrainConfig>(config)?.validate()
}

#[test]
fn numbers_that_would_need_absurd_memory_or_time_are_refused() {
    let mut paths = Vec::new();
    numbers(&whole(), "", &mut paths);
    assert!(paths.len() > 30, "{paths:?}");
    for path in &paths {
        let key = path.rsplit('.').next().unwrap();
        for value in [json!(i64::MIN), json!(-1), json!(1_u64 << 40), json!(i64::MAX), json!(u64::MAX), json!(1e308)] {
            let outcome = check(path, &value);
            // Any seed is one, there is no need of checkpoints, and a step of any size is only a step.
            let any = ["seed", "every", "checkpoint_every"].contains(&key);
            let scale = ["learning_rate", "weight", "snr_gamma", "max_grad_norm", "eps", "weight_decay"].contains(&key)
                || key.starts_with("lambda");
            // Guidance of at most 1 is none.
            let off = key == "guidance_scale" && value == json!(-1);
            match outcome {
                Ok(()) => assert!(any || scale || off, "{path} may be {value}"),
                Err(error) => {
                    let error = format!("{error:#}");
                    assert!(error.contains(key) || error.contains("invalid"), "{path} = {value}: {error}");
                }
            }
        }
    }
    for (path, words) in [
        (
            "phases.unet.steps",
            "phase unet: steps is 1099511627776, but must be from 0 to 1000000: they are done one by one",
        ),
        (
            "phases.embedding.batch_size",
            "batch_size is 1099511627776, but must be from 1 to 1024: a batch is held in memory",
        ),
        ("vectors", "vectors is 1099511627776, but must be from 1 to 75"),
        ("prior.images", "prior: images is 1099511627776"),
    ] {
        let error = format!("{:#}", check(path, &json!(1_u64 << 40)).unwrap_err());
        assert!(error.contains(words), "{path}: {error}");
    }
}

#[test]
fn a_path_of_any_depth_is_refused() {
    let mut layers = ConfigLayers::new(&TrainConfig::paper()).unwrap();
    let deep = "a.".repeat(50_000) + "b";
    let error = layers.set(&deep, "1").unwrap_err().to_string();
    assert!(error.contains("is not the path of a configuration value") && error.len() < 1000, "{error}");
    // Nor does a long value hide what is said of it.
    layers.set("phases.unet.steps", &"many ".repeat(10_000)).unwrap();
    let error = format!("{:#}", layers.finish().unwrap_err());
    assert!(error.contains("phases.unet.steps: invalid type") && error.len() < 1000, "{error}");
}
