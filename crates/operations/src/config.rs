//! `config`, and the configuration that options make: a preset, a file, the flags.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use options::LearningRateSchedule;
use requests::{Config, ConfigAction, ConfigFormat, Preset, Train, TrainOptions};
use runs::{ConfigLayers, SavedRun, TrainConfig, config_schema, layout};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{inputs, models};

/// What was to be printed.
#[derive(Debug, Clone, Serialize)]
pub struct Configured {
    /// JSON or TOML.
    pub text: String,
}

pub(crate) fn run(request: &Config) -> Result<Configured> {
    let text = match &request.action {
        ConfigAction::Print { format, options } => {
            let config = layers(options, None)?.finish()?;
            let printed = serde_json::to_value(&config)?;
            match format {
                ConfigFormat::Json => serde_json::to_string_pretty(&printed)?,
                ConfigFormat::Toml => toml::to_string_pretty(&without_nulls(printed))?,
            }
        }
        ConfigAction::Schema => serde_json::to_string_pretty(&config_schema())?,
    };
    Ok(Configured { text })
}

/// TOML has no null: what is unset is not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let set = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        value => value,
    }
}

/// The layers of a configuration; of a run that has begun, over its own, which need not be given again.
pub(crate) fn layers(options: &TrainOptions, begun: Option<&Path>) -> Result<ConfigLayers> {
    let preset = options.preset.map(|preset| match preset {
        Preset::Paper => TrainConfig::paper(),
        Preset::Fast => TrainConfig::fast(),
    });
    if let Some(run) = begun {
        let mut layers = ConfigLayers::of_run(run)?;
        if let Some(preset) = preset {
            layers.preset(&preset)?;
        }
        return over(options, layers);
    }
    // Wherever the method is named, and the model.
    let given = over(options, ConfigLayers::new(&TrainConfig::paper())?)?;
    let method = given.method().unwrap_or_default();
    let recipe = methods::named(method)?.recipe();
    ensure!(
        options.rank.is_none() || recipe.adapter.is_some() || given.has("adapter.type"),
        "--rank is of a LoRA, but the method {method} has none: give --method lora or attndreambooth-lora, or leave it out"
    );
    match preset {
        Some(preset) => {
            ensure!(
                method == preset.method,
                "--preset is of the method {}, but the method is {method}; leave it out",
                preset.method
            );
            over(options, ConfigLayers::new(&preset)?)
        }
        None => {
            let model = over(options, ConfigLayers::new(&recipe)?)?.finish()?.model;
            over(options, ConfigLayers::of_model(&model, &recipe)?)
        }
    }
}

/// The layers of what `train` asks for, a new run, one that resumes, or one that extends another.
pub(crate) fn of_train(request: &Train, out: &Path) -> Result<ConfigLayers> {
    let (Some(run), Some(more)) = (&request.extend, request.extend_steps) else {
        return layers(&request.options, request.resume.then_some(out));
    };
    let mut layers = layers(&request.options, Some(run))?;
    let saved = SavedRun::read(run)?;
    let config = saved.config();
    let last = config.last_phase();
    let (_, name, phase) = last.with_context(|| format!("no phase of the run in {} has steps", terminal::path(run)))?;
    layers.put(&format!("phases.{name}.steps"), Value::from(phase.steps.saturating_add(more)))?;
    // They need not be generated again.
    let images = run.join(layout::PRIOR);
    let own = config.prior.as_ref().is_some_and(|prior| prior.folder.is_none());
    if own && images.is_dir() && request.options.prior_folder.is_none() {
        layers.put("prior.folder", absolute(&images))?;
    }
    Ok(layers)
}

/// Lays the file and the flags over `layers`; each `--set` wins over all else.
fn over(options: &TrainOptions, mut layers: ConfigLayers) -> Result<ConfigLayers> {
    if let Some(path) = &options.config {
        layers.file(path)?;
    }
    // What a run says of itself is true wherever it is read.
    let path = |path: &Option<PathBuf>| path.as_deref().map(absolute);
    let number = |number: Option<usize>| number.map(Value::from);
    let concept = options.concept.as_deref().map(|concept| inputs::photos(concept, None)).transpose()?;
    let flags = [
        ("method", options.method.clone().map(Value::from)),
        ("model", path(&models::located(options.model.as_deref())?)),
        ("concept", path(&concept)),
        ("init_from", path(&options.init_from)),
        ("category", options.category.clone().map(Value::from)),
        ("seed", options.seed.map(|seed| Value::from(seed.get()))),
        ("stop.type", options.stop.map(serde_json::to_value).transpose()?),
        ("stop.clip.model", path(&options.stop_clip)),
        ("stop.clip.floor", options.stop_floor.map(Value::from)),
        ("adapter.rank", options.rank.map(Value::from)),
        ("augmentation.resolution", options.resolution.map(Value::from)),
        // As of prior, the other values stay what they are.
        ("captions", options.photos.captions.then(|| Value::Object(Map::new()))),
        ("captions.template", options.photos.caption_template.clone().map(Value::from)),
        ("masks", options.photos.masks.then(|| Value::Object(Map::new()))),
        ("masks.unmasked_weight", options.photos.unmasked_weight.map(Value::from)),
        ("buckets", options.photos.buckets.then(|| Value::from(true))),
        ("cache_latents", options.photos.cache_latents.map(Value::from)),
        ("dtype", options.dtype.map(|dtype| Value::from(dtype.name()))),
        ("gradient_checkpointing", options.gradient_checkpointing.then(|| Value::from(true))),
        ("deterministic", options.deterministic.then(|| Value::from(true))),
        // No value of its own: the others keep theirs.
        ("prior", options.prior_preservation.then(|| Value::Object(Map::new()))),
        ("prior.images", number(options.prior_images)),
        ("prior.folder", path(&options.prior_folder)),
        ("checkpoint_every", number(options.checkpoint_every)),
        ("keep_checkpoint", options.keep_checkpoint.then(|| Value::from(true))),
        ("validation.every", number(options.validate_every)),
        ("validation.results", options.results.clone().map(Value::from)),
        ("model_options.tokenizer", path(&options.single_file.tokenizer)),
        (
            "model_options.prediction_type",
            options.single_file.prediction_type.map(|kind| Value::from(kind.to_string())),
        ),
        ("model_options.config", path(&options.single_file.model_config)),
    ];
    for (path, value) in flags {
        if let Some(value) = value {
            layers.put(path, value)?;
        }
    }
    for (phase, key, value) in phase_flags(options, &layers.phases())? {
        layers.put(&format!("phases.{phase}.{key}"), value)?;
    }
    for pair in &options.set {
        let (path, value) = split_change(pair)?;
        layers.set(path, value)?;
    }
    if !options.add_concept.is_empty() {
        let first = layers.placeholder().unwrap_or_default();
        let further = options.add_concept.iter().zip(1..).map(|(concept, number)| {
            json!({
                "concept": absolute(&concept.photos),
                "category": concept.category,
                "placeholder": numbered(first, number),
            })
        });
        let further: Vec<Value> = further.collect();
        layers.put("more_concepts", Value::from(further))?;
    }
    Ok(layers)
}

/// A path as it is true wherever it is read.
fn absolute(path: &Path) -> Value {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Value::from(absolute.display().to_string())
}

/// The token `number` after the first: <new3> is the second after <new1>, and after <new>.
fn numbered(first: &str, number: usize) -> String {
    let (name, end) = first.strip_suffix('>').map_or((first, ""), |name| (name, ">"));
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let count = name[stem.len()..].parse::<usize>().unwrap_or(1);
    format!("{stem}{}{end}", count.saturating_add(number))
}

/// What the flags say of phases: of all, of the last one, and then of single ones by name, which win.
fn phase_flags(options: &TrainOptions, phases: &[String]) -> Result<Vec<(String, &'static str, Value)>> {
    let number = |number: Option<usize>| number.map(Value::from);
    let schedule = |schedule: Option<LearningRateSchedule>| schedule.map(serde_json::to_value).transpose();
    let mut found = Vec::new();
    for (key, value) in [
        ("warm_up", number(options.warm_up)),
        ("schedule", schedule(options.schedule)?),
        ("batch_size", number(options.batch_size)),
        ("gradient_accumulation", number(options.gradient_accumulation)),
    ] {
        found.extend(
            value.into_iter().flat_map(|value| phases.iter().map(move |phase| (phase.clone(), key, value.clone()))),
        );
    }
    let text_encoder = options.train_text_encoder.then(|| Value::Object(Map::new()));
    for (key, value) in [
        ("steps", number(options.steps)),
        ("learning_rate", options.learning_rate.map(Value::from)),
        ("trains.text_encoder", text_encoder),
    ] {
        found.extend(value.zip(phases.last()).map(|(value, phase)| (phase.clone(), key, value)));
    }
    let flags = &options.phases;
    for (phase, key, value) in [
        ("embedding", "steps", number(flags.embedding_steps)),
        ("embedding", "learning_rate", flags.embedding_learning_rate.map(Value::from)),
        ("embedding", "warm_up", number(flags.embedding_warm_up)),
        ("embedding", "schedule", schedule(flags.embedding_schedule)?),
        ("cross_attention", "steps", number(flags.cross_attention_steps)),
        ("cross_attention", "learning_rate", flags.cross_attention_learning_rate.map(Value::from)),
        ("cross_attention", "warm_up", number(flags.cross_attention_warm_up)),
        ("cross_attention", "schedule", schedule(flags.cross_attention_schedule)?),
        ("unet", "steps", number(flags.unet_steps)),
        ("unet", "learning_rate", flags.unet_learning_rate.map(Value::from)),
        ("unet", "warm_up", number(flags.unet_warm_up)),
        ("unet", "schedule", schedule(flags.unet_schedule)?),
    ] {
        found.extend(value.map(|value| (phase.to_owned(), key, value)));
    }
    Ok(found)
}

/// The path and the value of a `--set PATH=VALUE`.
pub(crate) fn split_change(pair: &str) -> Result<(&str, &str)> {
    pair.split_once('=').with_context(|| format!("--set {pair:?} has no =; write it as --set phases.unet.steps=200"))
}

#[cfg(test)]
mod tests {
    use requests::{Command, parse};
    use runs::{Captions, Masks};

    use super::*;

    #[test]
    fn requests_names_all_methods() {
        let named = methods::named("none").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(named.ends_with(&format!("the methods are {}", requests::METHODS.join(", "))), "{named}");
    }

    fn config(more: &[&str]) -> TrainConfig {
        let line = ["attndreambooth", "train", "--concept", "photos", "--category", "bird", "--out", "run"];
        let Command::Train(train) = parse([&line, more].concat()).unwrap().command else { panic!() };
        layers(&train.options, None).unwrap().finish().unwrap()
    }

    #[test]
    fn further_subjects_have_tokens_of_their_own() {
        assert_eq!(
            ["<new1>", "<new>", "my", "<a9>"].map(|first| numbered(first, 2)),
            ["<new3>", "<new3>", "my3", "<a11>"]
        );
        let config =
            config(&["--method", "custom-diffusion", "--add-concept", "cats:cat", "--add-concept", "/dogs:dog"]);
        let found: Vec<_> = config.concepts().iter().map(|concept| concept.fill("[V] [category]")).collect();
        assert_eq!(found, ["[V] bird", "<new2> cat", "<new3> dog"]);
        assert!(config.more_concepts[0].concept.is_absolute());
        config.validate().unwrap();
    }

    #[test]
    fn what_lies_beside_photos_is_used_where_any_flag_asks_for_it() {
        let none = config(&[]);
        assert_eq!((none.captions, none.masks, none.buckets), (None, None, false));
        let all = config(&["--captions", "--masks", "--buckets"]);
        assert_eq!((all.captions, all.masks, all.buckets), (Some(Captions::default()), Some(Masks::default()), true));
        let values = config(&["--caption-template", "[V], [caption]", "--unmasked-weight", "0.5"]);
        assert_eq!(values.captions.map(|captions| captions.template), Some("[V], [caption]".to_owned()));
        assert_eq!(values.masks, Some(Masks { unmasked_weight: 0.5 }));
    }

    #[test]
    fn a_models_own_preset_is_taken_wherever_the_model_is_named() {
        let miniature = golden::fixtures().join("miniature").display().to_string();
        let steps = |more: &[&str]| config(more).phases["unet"].steps;
        assert_eq!(steps(&[]), TrainConfig::paper().phases["unet"].steps);
        let own = steps(&["--model", &miniature]);
        assert_ne!(own, TrainConfig::paper().phases["unet"].steps);
        assert_eq!(steps(&["--set", &format!("model={miniature}")]), own);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.json");
        std::fs::write(&file, serde_json::json!({ "model": miniature, "seed": 3 }).to_string()).unwrap();
        let file = file.display().to_string();
        assert_eq!(steps(&["--config", &file]), own);
        assert_eq!(steps(&["--config", &file, "--unet-steps", "9"]), 9);
        assert_eq!(steps(&["--config", &file, "--unet-steps", "9", "--set", "phases.unet.steps=7"]), 7);
        assert_eq!(steps(&["--config", &file, "--preset", "fast"]), TrainConfig::fast().phases["unet"].steps);
    }
}
