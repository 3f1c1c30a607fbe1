//! What a run's `config.json` says of it: its configuration, and its photos and base model by their contents.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use journal::SavedConfig;
use model_files::BaseModel;
use photos::Photo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{ModelFingerprint, TrainConfig};

/// The format of a run's folder. The first, which recorded none, did not record the base model either.
const FORMAT: u32 = 2;

/// A photo by its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPhoto {
    /// Its name when the run was begun.
    file: String,
    sha256: String,
}

/// A run as its `config.json` describes it.
#[derive(Debug)]
pub(crate) struct SavedRun {
    folder: PathBuf,
    saved: SavedConfig,
    pub(crate) config: TrainConfig,
    pub(crate) base: Option<ModelFingerprint>,
    pub(crate) photos: Vec<SavedPhoto>,
}

impl SavedRun {
    /// Reads the configuration of the run in a folder, finished or not.
    ///
    /// # Errors
    /// When there is none, or a version of the program wrote it that this one does not understand.
    pub(crate) fn read(run: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Record {
            config: TrainConfig,
            base_model: Option<ModelFingerprint>,
            #[serde(default)]
            photos: Vec<SavedPhoto>,
        }
        let no_run = || format!("{} is not the folder of a training run", run.display());
        let saved = SavedConfig::read(run).with_context(no_run)?;
        ensure!(
            saved.config.get("config").is_some_and(Value::is_object),
            "{}: its config.json has no config",
            no_run()
        );
        let format = format(&saved.versions).with_context(no_run)?;
        ensure!(format <= FORMAT, unreadable(run, &saved.versions, format));
        let theirs = saved.versions["attndreambooth"].as_str();
        let Record { config, base_model, photos } = serde_path_to_error::deserialize(saved.config.clone())
            .with_context(|| match theirs {
                Some(theirs) if theirs != env!("CARGO_PKG_VERSION") || format != FORMAT => {
                    unreadable(run, &saved.versions, format)
                }
                _ => format!("{} is damaged", run.join("config.json").display()),
            })?;
        Ok(Self { folder: run.to_owned(), saved, config, base: base_model, photos })
    }

    /// Makes sure that the model on disk is the run's.
    ///
    /// # Errors
    /// Names the files that differ.
    pub(crate) fn check_base(&self, found: &ModelFingerprint, model: &BaseModel) -> Result<()> {
        self.base.as_ref().map_or(Ok(()), |base| base.check(found, model.path(), &self.folder))
    }

    /// What cannot be checked.
    pub(crate) fn note(&self) -> Option<String> {
        self.base.is_none().then(|| {
            format!(
                "an earlier version made the run in {} and did not record its base model's contents: that {} has not \
                 changed since is taken on trust",
                self.folder.display(),
                self.config.model.display()
            )
        })
    }

    /// The run's photos in its own order, whatever their files are called now.
    ///
    /// # Errors
    /// Names a photo that is missing or new.
    pub(crate) fn arrange(&self, photos: Vec<Photo>, concept: &Path) -> Result<Vec<Photo>> {
        let refuse = |what: String| -> Result<Vec<Photo>> {
            bail!(
                "the photos in {} are not those of the run in {}: {what}; name the folder of those with --concept",
                concept.display(),
                self.folder.display()
            )
        };
        let mut left: VecDeque<Photo> = photos.into();
        let mut arranged = Vec::new();
        for SavedPhoto { file, sha256 } in &self.photos {
            match left.iter().position(|photo| photo.sha256 == *sha256).and_then(|at| left.remove(at)) {
                Some(photo) => arranged.push(photo),
                None => return refuse(format!("{file} is missing or has other contents")),
            }
        }
        match left.front() {
            Some(photo) => refuse(format!("{} was not there", photo.name())),
            None => Ok(arranged),
        }
    }

    /// Makes sure that a run goes on as it was begun, wherever its model and its photos are now.
    ///
    /// # Errors
    /// Names the values that differ.
    pub(crate) fn check_same(&self, record: &Value) -> Result<()> {
        let mut begun = self.saved.config.clone();
        // What it did not say has the value that it has now.
        begun["config"] = serde_json::to_value(&self.config)?;
        let differences = journal::differences(&without_places(&begun), &without_places(record));
        ensure!(
            differences.is_empty(),
            "the run in {} cannot go on with another configuration: {}; leave that as it was, or start a new run",
            self.folder.display(),
            differences.join("; ")
        );
        Ok(())
    }

    /// The record with the present places, if they are others.
    pub(crate) fn moved(&self, config: &TrainConfig) -> Result<Option<SavedConfig>> {
        let mut saved = self.saved.clone();
        let now = serde_json::to_value(config)?;
        for place in PLACES {
            if let (Some(then), Some(now)) = (at(&mut saved.config["config"], place), at(&mut now.clone(), place)) {
                *then = now.take();
            }
        }
        Ok((saved != self.saved).then_some(saved))
    }
}

/// What a new run records of itself.
pub(crate) fn record(
    config: &TrainConfig,
    base: &ModelFingerprint,
    photos: &[Photo],
    prior_photos: Option<Vec<SavedPhoto>>,
) -> Value {
    let mut record = json!({ "config": config, "base_model": base, "photos": by_contents(photos) });
    if let Some(photos) = prior_photos {
        record["prior_photos"] = json!(photos);
    }
    record
}

/// What a run was made with.
pub(crate) fn versions(device: tch::Device) -> [(&'static str, String); 4] {
    [
        ("attndreambooth", env!("CARGO_PKG_VERSION").to_owned()),
        ("format", FORMAT.to_string()),
        ("libtorch", libtorch::LIBTORCH_VERSION.to_owned()),
        ("device", format!("{device:?}")),
    ]
}

/// What photos are, by their bytes.
pub(crate) fn by_contents<'a>(photos: impl IntoIterator<Item = &'a Photo>) -> Vec<SavedPhoto> {
    photos.into_iter().map(|photo| SavedPhoto { file: photo.name(), sha256: photo.sha256.clone() }).collect()
}

/// Values of a configuration that say where something is, and not what.
const PLACES: [&[&str]; 5] =
    [&["model"], &["model_options", "tokenizer"], &["model_options", "config"], &["concept"], &["prior", "folder"]];

/// A configuration without what may change when its files are moved.
pub(crate) fn without_place(config: &mut Value) {
    for place in PLACES {
        if let Some(value) = at(config, place) {
            *value = Value::Null;
        }
    }
}

/// A record without places, and without what is compared by its contents.
fn without_places(record: &Value) -> Value {
    let mut record = record.clone();
    without_place(&mut record["config"]);
    for compared in ["base_model", "photos"] {
        record[compared] = Value::Null;
    }
    record
}

fn at<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, key| value.get_mut(key))
}

/// The format of a run's folder; none is recorded by the first.
fn format(versions: &Value) -> Result<u32> {
    let Some(format) = versions.get("format") else { return Ok(1) };
    let number = format.as_str().and_then(|text| text.parse().ok());
    number.with_context(|| format!("its config.json says that its format is {format}, which is no number"))
}

fn unreadable(run: &Path, versions: &Value, format: u32) -> String {
    format!(
        "the run in {} has format {format}, written by version {}, but this version, {}, reads format {FORMAT}: use that \
         version, or train again",
        run.display(),
        versions["attndreambooth"].as_str().unwrap_or("unknown"),
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(config: &Value, versions: &Value) -> String {
        let folder = tempfile::tempdir().unwrap();
        let text = json!({ "config": config, "versions": versions }).to_string();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        SavedRun::read(folder.path()).map_or_else(|error| format!("{error:#}"), |_| "understood".to_owned())
    }

    #[test]
    fn another_format_is_refused_with_both_numbers() {
        let ours = env!("CARGO_PKG_VERSION");
        assert_eq!(says(&json!({}), &json!({ "attndreambooth": ours, "format": "2" })), "understood");
        assert_eq!(says(&json!({}), &json!({ "attndreambooth": "0.0.1" })), "understood");
        let text = says(&json!({}), &json!({ "attndreambooth": "9.8.7", "format": "3" }));
        assert!(
            text.contains("has format 3, written by version 9.8.7, but") && text.contains("reads format 2"),
            "{text}"
        );
        assert!(text.contains(ours) && text.lines().count() == 1, "{text}");
        // Of no later format, but with values that are not known here.
        let text = says(&json!({ "old": 1 }), &json!({ "attndreambooth": "0.0.1" }));
        assert!(text.contains("has format 1, written by version 0.0.1") && text.contains("old"), "{text}");
        let text = says(&json!({ "old": 1 }), &json!({ "attndreambooth": ours, "format": "2" }));
        assert!(text.contains("config.json is damaged") && text.contains("old"), "{text}");
        let text = says(&json!({}), &json!({ "format": [] }));
        assert!(text.contains("its format is [], which is no number"), "{text}");
        assert!(says(&json!(1), &json!({})).contains("has no config"));
    }

    #[test]
    fn only_places_may_change() {
        let run = |config: TrainConfig| json!({ "config": config, "photos": [], "versions": {} });
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig { model: "/a".into(), concept: "/b".into(), ..TrainConfig::paper() };
        std::fs::write(folder.path().join("config.json"), run(config.clone()).to_string()).unwrap();
        let saved = SavedRun::read(folder.path()).unwrap();
        assert_eq!(saved.moved(&config).unwrap(), None);
        let config = TrainConfig { model: "/c".into(), concept: "/d".into(), ..config };
        saved.check_same(&json!({ "config": config })).unwrap();
        let moved = saved.moved(&config).unwrap().unwrap();
        assert_eq!(moved.config["config"], serde_json::to_value(&config).unwrap());
        let error = saved.check_same(&json!({ "config": TrainConfig { seed: 1, ..config } })).unwrap_err().to_string();
        assert!(error.contains("configuration: config.seed was 0, is 1; leave"), "{error}");
    }
}
