//! The configuration on disk, and how two differ.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::layout::CONFIG;

pub(crate) const VERSIONS: &str = "versions";

/// Versions of what numbers depend on, by name.
pub type Versions = BTreeMap<String, String>;

/// The `config.json` of any run, a training or another.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedConfig {
    /// The configuration, without the versions.
    pub config: Value,
    /// The versions that it ran with; none in a `config.json` that is not of a run.
    pub versions: Option<Versions>,
}

impl SavedConfig {
    /// Reads `config.json` in the folder of a run, which need not be locked.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join(CONFIG);
        let text = limits::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let damaged =
            || format!("{} is damaged; it must hold the run's configuration as a JSON object", path.display());
        let mut config: Map<String, Value> = json::parse(&text).with_context(damaged)?;
        // The order of keys is what people see; `remove` would disturb it.
        let versions = config.shift_remove(VERSIONS).map(serde_json::from_value).transpose().with_context(damaged)?;
        Ok(Self { config: Value::Object(config), versions })
    }
}

/// Whether a folder holds a run: a `config.json` as [`crate::RunFolder::write_config`] writes it, unlike a model's.
pub fn holds_run(folder: &Path) -> bool {
    SavedConfig::read(folder).is_ok_and(|saved| saved.versions.is_some())
}

/// What differs between two configurations, one text for each value: `unet.learning_rate was 2e-6, is 1e-5`.
///
/// Numbers are compared by value, so that 1 equals 1.0; the order of keys means nothing.
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", Some(old), Some(new), &mut found);
    found
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<String>) {
    let inner = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for (key, value) in new {
                compare(&inner(key), old.get(key), Some(value), found);
            }
            for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                compare(&inner(key), Some(value), None, found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (i, (old, new)) in old.iter().zip(new).enumerate() {
                compare(&inner(&i.to_string()), Some(old), Some(new), found);
            }
        }
        _ if same(old, new) => {}
        _ => {
            let name = if path.is_empty() { "the configuration" } else { path };
            found.push(format!("{name} was {}, is {}", text(old), text(new)));
        }
    }
}

/// As JSON, but small numbers as people write learning rates.
fn text(value: Option<&Value>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(value) => match value.as_f64().filter(|number| *number != 0.0 && number.abs() < 1e-3) {
            Some(number) => format!("{number:e}"),
            None => terminal::shortened(&value.to_string()).into_owned(),
        },
    }
}

fn same(old: Option<&Value>, new: Option<&Value>) -> bool {
    let float = |value: Option<&Value>| value.filter(|value| value.is_number()).and_then(Value::as_f64);
    let any_float = old.is_some_and(Value::is_f64) || new.is_some_and(Value::is_f64);
    // Integers are compared as such: seeds may have more digits than a float holds.
    old == new || (any_float && float(old).is_some() && float(old) == float(new))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::RunFolder;

    #[test]
    fn every_changed_value_is_named_with_its_path() {
        let old = json!({"seed": 1, "unet": {"steps": 500, "learning_rate": 2e-6}, "sizes": [1, 2], "ema": null, "gone": "x"});
        let new = json!({"unet": {"learning_rate": 1e-5, "steps": 500}, "seed": 1, "sizes": [1, 3], "ema": {"decay": 0.9}, "added": true});
        assert_eq!(
            differences(&old, &new),
            [
                "unet.learning_rate was 2e-6, is 1e-5",
                "sizes.1 was 2, is 3",
                r#"ema was null, is {"decay":0.9}"#,
                "added was absent, is true",
                r#"gone was "x", is absent"#,
            ]
        );
        assert!(differences(&old, &old).is_empty());
        assert_eq!(differences(&json!({"a": [1]}), &json!({"a": [1, 2]})), ["a was [1], is [1,2]"]);
        assert_eq!(differences(&json!(1), &json!({})), ["the configuration was 1, is {}"]);
    }

    #[test]
    fn numbers_are_compared_by_value_and_large_integers_exactly() {
        let differ = |old: Value, new: Value| !differences(&json!({"a": old}), &json!({"a": new})).is_empty();
        assert!(!differ(json!(1), json!(1.0)));
        assert!(differ(json!(u64::MAX), json!(u64::MAX - 1)));
        assert!(
            differ(json!(0), json!(null))
                && differ(json!("1"), json!(1))
                && differ(json!(0.1), json!(0.1_f64.next_up()))
        );
    }

    #[test]
    fn a_configuration_read_back_does_not_differ() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        // Numbers of 17 digits, of which a careless reader changes the last.
        let rates: Vec<f64> = (1..2000).map(|i| f64::from(i).sqrt() * 1e-7).collect();
        let config = json!({"z": rates, "a": {"seed": u64::MAX}, "text": "ä\n"});
        run.write_config(&config, [("program", "1.2.3")]).unwrap();
        let saved = run.saved_config().unwrap();
        assert_eq!(differences(&saved.config, &config), [""; 0]);
        assert_eq!(saved, SavedConfig { config, versions: Some([("program".to_owned(), "1.2.3".to_owned())].into()) });
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        assert!(run.write_config(&[1, 2], []).is_err());
        assert!(run.write_config(&json!({"versions": 1}), []).unwrap_err().to_string().contains("called versions"));
        assert!(!folder.path().join(CONFIG).exists());
        std::fs::write(folder.path().join(CONFIG), "{\"a\": ").unwrap();
        assert!(run.saved_config().unwrap_err().to_string().contains("config.json is damaged"));
    }
}
