//! Options of `train` in a file, under their names in JSON.

use anyhow::{Context, Result, ensure};
use requests::TrainOptions;
use serde_json::{Map, Value};

/// Options that a file has under `keys`, of which `own` are not its to give; `what` has them, such as `the method "OFT"`.
///
/// # Errors
/// Names a key that is no option of `train`, is one of `own`, or has a value of another type.
pub fn parse_options(keys: Map<String, Value>, own: &[&str], what: &str) -> Result<TrainOptions> {
    options_over(&TrainOptions::default(), keys, own, what)
}

/// The same where `all` holds if nothing else is said; values of `set` come after those of `all`, and win.
///
/// # Errors
/// As [`parse_options`].
pub fn options_over(all: &TrainOptions, keys: Map<String, Value>, own: &[&str], what: &str) -> Result<TrainOptions> {
    let mut options = serde_json::to_value(all)?;
    for (key, value) in keys {
        // Flattened fields let unknown ones pass.
        let present =
            options.get_mut(&key).with_context(|| format!("{what} has {key:?}, which is no option of `train`"))?;
        ensure!(!own.contains(&key.as_str()), "{what} has {key:?}, which is given elsewhere");
        match (present, value) {
            (Value::Array(present), Value::Array(more)) => present.extend(more),
            (present, value) => *present = value,
        }
    }
    serde_json::from_value(options).with_context(|| what.to_owned())
}
