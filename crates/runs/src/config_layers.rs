//! A configuration in layers: a preset, then a file, then single values.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};

use crate::{SavedRun, TrainConfig, layout};

/// A configuration that is being put together; later layers win.
///
/// ```
/// use runs::{ConfigLayers, TrainConfig};
///
/// let mut layers = ConfigLayers::new(&TrainConfig::fast())?;
/// layers.set("category", "dog")?;
/// layers.set("phases.unet.learning_rate", "5e-6")?;
/// let config = layers.finish()?;
/// let unet = &config.phases["unet"];
/// assert_eq!((config.category.as_str(), unet.steps, unet.learning_rate), ("dog", 200, 5e-6));
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct ConfigLayers {
    value: Value,
    given: Value,
}

impl ConfigLayers {
    /// Starts from a preset.
    ///
    /// # Errors
    /// None in practice: a preset can always be written as JSON.
    pub fn new(preset: &TrainConfig) -> Result<Self> {
        Ok(Self { value: serde_json::to_value(preset)?, given: Value::Object(Map::new()) })
    }

    /// Starts from what a model is best trained with: a method's own values and, over them, what `attndreambooth.json` in the
    /// model's folder says, if there is one: of all methods, and under `methods` of this one.
    ///
    /// # Errors
    /// When that file cannot be read or is not a JSON object.
    pub fn of_model(model: &Path, method: &TrainConfig) -> Result<Self> {
        let mut layers = Self::new(method)?;
        let file = model.join(layout::MODEL_CONFIG);
        if !file.exists() {
            return Ok(layers);
        }
        let mut common = read(&file)?;
        let own = common.as_object_mut().and_then(|common| common.shift_remove("methods"));
        layers.lay(common);
        if let Some(own) = own.and_then(|mut methods| methods.get_mut(&method.method).map(Value::take)) {
            layers.lay(own);
        }
        Ok(layers)
    }

    /// Starts from the configuration of the run in a folder, to resume it: what is laid over it must say the same.
    ///
    /// # Errors
    /// When there is no run, or one that this version does not understand.
    pub fn of_run(run: &Path) -> Result<Self> {
        ensure!(
            run.join(layout::CONFIG).exists(),
            "there is no run in {} to resume; leave out --resume to start one",
            run.display()
        );
        let mut layers = Self::new(&SavedRun::read(run)?.record.config)?;
        layers.given = layers.value.clone();
        Ok(layers)
    }

    /// Lays a preset's phases over it.
    ///
    /// # Errors
    /// As [`ConfigLayers::new`].
    pub fn preset(&mut self, preset: &TrainConfig) -> Result<()> {
        self.put("phases", serde_json::to_value(&preset.phases)?)
    }

    /// The name of the method.
    pub fn method(&self) -> Option<&str> {
        self.value.get("method")?.as_str()
    }

    /// The placeholder token of the first subject.
    pub fn placeholder(&self) -> Option<&str> {
        self.value.get("placeholder")?.as_str()
    }

    /// The names of the phases, in their order.
    pub fn phases(&self) -> Vec<String> {
        self.value
            .get("phases")
            .and_then(Value::as_object)
            .map_or_else(Vec::new, |phases| phases.keys().cloned().collect())
    }

    /// Lays the values of a file over it, TOML where its name ends in `.toml` and else JSON, which need not have all keys. A
    /// run's `config.json` does as well: what is under its key `config` counts.
    ///
    /// # Errors
    /// When the file cannot be read or is not a table of values.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        self.lay(read(path)?);
        Ok(())
    }

    fn lay(&mut self, value: Value) {
        merge(&mut self.value, value.clone());
        merge(&mut self.given, value);
    }

    /// Sets the value at a path such as `phases.unet.steps`, given as JSON or, where it is none, as plain text.
    ///
    /// # Errors
    /// When the path has an empty part.
    pub fn set(&mut self, path: &str, text: &str) -> Result<()> {
        self.put(path, serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)))
    }

    /// Sets the value at a path to a text, whatever it looks like.
    ///
    /// # Errors
    /// As [`ConfigLayers::set`].
    pub fn put(&mut self, path: &str, value: Value) -> Result<()> {
        // No value of the configuration lies deeper than five keys.
        let deep = path.split('.').count() > 8;
        let mut layer = value;
        for key in path.rsplit('.') {
            if key.is_empty() || deep {
                let path = terminal::shortened(path);
                bail!("{path:?} is not the path of a configuration value, such as phases.unet.steps");
            }
            layer = Value::Object(Map::from_iter([(key.to_owned(), layer)]));
        }
        self.lay(layer);
        Ok(())
    }

    /// Whether a layer above the preset has a value at a path.
    pub fn has(&self, path: &str) -> bool {
        path.split('.').try_fold(&self.given, |value, key| value.get(key)).is_some()
    }

    /// A phase of which only single values are given is none of the method's.
    fn check_phases(&self) -> Result<()> {
        let phases = self.value.get("phases").and_then(Value::as_object).into_iter().flatten();
        let (known, unknown): (Vec<_>, Vec<_>) = phases.partition(|(_, phase)| phase.get("trains").is_some());
        let Some((name, _)) = unknown.first() else { return Ok(()) };
        let known: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        bail!(
            "the method {} has no phase {:?}; its phases are {} (a new one needs trains, steps, learning_rate and batch_size)",
            self.method().unwrap_or_default(),
            terminal::shortened(name),
            known.join(", ")
        )
    }

    /// The configuration.
    ///
    /// # Errors
    /// Names a key that does not exist or has a value of the wrong type.
    pub fn finish(self) -> Result<TrainConfig> {
        self.check_phases()?;
        let config = serde_path_to_error::deserialize(self.value);
        // The message repeats the value, which may be of any length.
        config
            .map_err(|error| anyhow!("{}", terminal::shortened(&error.to_string())))
            .context("the configuration is not valid")
    }
}

/// The values of a file.
fn read(path: &Path) -> Result<Value> {
    let what = "a configuration of a training run";
    let mut value: Value = match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        true => {
            let text = json::text(path).with_context(|| format!("cannot read {}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("{} is not {what}", path.display()))?
        }
        false => json::read(path, what)?,
    };
    if let Some(config) = value.get_mut("config") {
        value = config.take();
    }
    ensure!(value.is_object(), "{} must hold the configuration's keys and their values", path.display());
    Ok(value)
}

/// Lays `layer` over `base`: objects key by key, everything else as a whole.
fn merge(base: &mut Value, layer: Value) {
    match (base, layer) {
        (Value::Object(base), Value::Object(layer)) => {
            for (key, value) in layer {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, layer) => *base = layer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_files_and_files_over_presets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{"phases": {"unet": {"steps": 7, "batch_size": 3}}, "seed": 5}"#).unwrap();
        let run = folder.path().join("run.json");
        std::fs::write(&run, r#"{"config": {"category": "dog"}, "versions": {}}"#).unwrap();
        let mut layers = ConfigLayers::new(&TrainConfig::paper()).unwrap();
        layers.file(&path).unwrap();
        layers.file(&run).unwrap();
        layers.set("phases.unet.steps", "9").unwrap();
        layers.put("category", Value::from("12")).unwrap();
        assert!(
            layers.has("phases.unet.batch_size")
                && !layers.has("phases.unet.learning_rate")
                && !layers.has("augmentation")
        );
        let config = layers.finish().unwrap();
        let unet = &config.phases["unet"];
        assert_eq!((unet.steps, unet.batch_size, config.seed), (9, 3, 5));
        assert_eq!((unet.learning_rate, config.category.as_str()), (2e-6, "12"));
    }

    #[test]
    fn a_file_may_begin_with_a_byte_order_mark_and_is_no_model() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(layout::MODEL_CONFIG);
        std::fs::write(&file, "\u{feff}{\"seed\": 5}").unwrap();
        assert_eq!(ConfigLayers::of_model(folder.path(), &TrainConfig::paper()).unwrap().finish().unwrap().seed, 5);
        std::fs::write(&file, "{\"seed\": 5").unwrap();
        let error = format!("{:#}", ConfigLayers::of_model(folder.path(), &TrainConfig::paper()).unwrap_err());
        let words = "attndreambooth.json is not a configuration of a training run: ";
        assert!(error.contains(words) && error.contains("EOF") && !error.contains("model:"), "{error}");
    }

    #[test]
    fn a_toml_file_says_the_same_as_a_json_file() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let mut layers = ConfigLayers::new(&TrainConfig::paper()).unwrap();
            layers.file(&path).map_err(|error| format!("{error:#}"))?;
            layers.finish().map_err(|error| format!("{error:#}"))
        };
        let toml = "seed = 5\nsnr_gamma = 5.0\n[phases.unet]\nsteps = 7\nlearning_rate = 1e-5\n[prior]\n";
        let json =
            r#"{"seed": 5, "snr_gamma": 5.0, "phases": {"unet": {"steps": 7, "learning_rate": 1e-5}}, "prior": {}}"#;
        assert_eq!(read("a.toml", toml).unwrap(), read("a.json", json).unwrap());
        let error = read("b.toml", "seed = \n").unwrap_err();
        assert!(error.contains("b.toml is not a configuration of a training run"), "{error}");
        assert!(read("c.toml", "[phases.unet]\nstep = 1").unwrap_err().contains("unknown field `step`"));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let says = |path: &str, text: &str, words: &[&str]| {
            let mut layers = ConfigLayers::new(&TrainConfig::paper()).unwrap();
            layers.set(path, text).unwrap();
            let error = format!("{:#}", layers.finish().unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        says("phases.unet.step", "9", &["unet", "unknown field `step`"]);
        says("phases.unet.steps", "many", &["phases.unet.steps", "many"]);
        says("phases.unett.steps", "9", &["attndreambooth has no phase \"unett\"", "embedding, cross_attention, unet"]);
        says("regularizer.mode", "some", &["regularizer.mode", "per_layer"]);
        assert!(ConfigLayers::new(&TrainConfig::paper()).unwrap().set("phases..steps", "1").is_err());
    }
}
