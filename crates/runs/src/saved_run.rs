//! What the `config.json` of a training says: its configuration, and its photos and base model by their contents.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use photos::Photo;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ModelFingerprint, RunFolder, SavedConfig, TrainConfig, Versions, differences, paths};

/// The format of a run's folder. The first recorded none; the second had three stages in place of phases.
pub const FORMAT: u32 = 3;

/// A photo by its contents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPhoto {
    /// Its file's name when the run started.
    pub file: String,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Its caption, where captions are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// The SHA-256 of its mask's file, where masks are used and it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

impl SavedPhoto {
    fn of(photo: &Photo) -> Self {
        Self {
            file: photo.name(),
            sha256: photo.sha256.clone(),
            caption: photo.caption.as_ref().map(|caption| caption.text.clone()),
            mask: photo.mask.as_ref().map(|mask| mask.sha256.clone()),
        }
    }
}

/// What a training records of itself before its first step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its configuration.
    pub config: TrainConfig,
    /// Its base model.
    pub base_model: ModelFingerprint,
    /// The photos that it learns from.
    #[serde(default)]
    pub photos: Vec<SavedPhoto>,
    /// Those of further subjects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_photos: Vec<Vec<SavedPhoto>>,
    /// The user's own class images, where it has prior preservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior_photos: Option<Vec<SavedPhoto>>,
    /// The CLIP by which it may stop, by its weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_clip: Option<ModelFingerprint>,
    /// The finished run that it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<Extends>,
}

impl RunRecord {
    /// What another process that is to take part in this run has otherwise, wherever its files are; none where nothing differs.
    ///
    /// # Errors
    /// None in practice.
    pub fn difference(&self, other: &Self) -> Result<Option<String>> {
        let values = differences(&without_paths(self)?, &without_paths(other)?);
        if !values.is_empty() {
            return Ok(Some(format!("another configuration ({})", values.join("; "))));
        }
        if self.base_model.sha256 != other.base_model.sha256 {
            return Ok(Some(format!("another base model ({} is not {})", other.base_model.name, self.base_model.name)));
        }
        let photos = |record: &'_ Self| -> Vec<SavedPhoto> {
            std::iter::once(&record.photos).chain(&record.more_photos).flatten().cloned().collect()
        };
        let (ours, theirs) = (photos(self), photos(other));
        if ours.len() != theirs.len() {
            return Ok(Some(format!("other photos ({} instead of {})", theirs.len(), ours.len())));
        }
        // Whatever the files are called.
        let differs = |(ours, theirs): &(&SavedPhoto, &SavedPhoto)| {
            (&ours.sha256, &ours.caption, &ours.mask) != (&theirs.sha256, &theirs.caption, &theirs.mask)
        };
        let other = ours.iter().zip(&theirs).find(differs);
        Ok(other.map(|(ours, theirs)| match ours.sha256 == theirs.sha256 {
            true => format!("another caption or mask of {}", theirs.file),
            false => format!("other photos ({} in place of {})", theirs.file, ours.file),
        }))
    }
}

/// A finished run that a longer one goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extends {
    /// Its folder.
    pub run: PathBuf,
    /// The steps that it has done of the phase that is extended.
    pub steps: usize,
    /// Whether the optimiser goes on too, so that the whole is as if it had been one run.
    pub optimizer: bool,
}

/// A training run as its `config.json` describes it, finished or not.
#[derive(Debug, Clone)]
pub struct SavedRun {
    /// Its folder.
    pub folder: PathBuf,
    /// What it recorded.
    pub record: RunRecord,
    /// The versions that it started with.
    pub versions: Versions,
}

impl RunFolder {
    /// Writes the record of a new training, with this program's version and format, and those of what the numbers depend on:
    /// LibTorch's version and the device.
    ///
    /// # Errors
    /// As [`RunFolder::write_config`].
    pub fn write_record(&self, record: &RunRecord, libtorch: &str, device: &str) -> Result<()> {
        let format = FORMAT.to_string();
        let program = ("attndreambooth", env!("CARGO_PKG_VERSION"));
        self.write_config(record, [program, ("format", &format), ("libtorch", libtorch), ("device", device)])
    }
}

impl SavedRun {
    /// Reads the record in the folder of a training run.
    ///
    /// # Errors
    /// When there is none, or a version of the program wrote it that this one does not understand.
    pub fn read(run: &Path) -> Result<Self> {
        let no_run = || format!("{} is not the folder of a training run", run.display());
        let SavedConfig { config, versions } = SavedConfig::read(run).with_context(no_run)?;
        let versions = versions.unwrap_or_default();
        ensure!(config.get("config").is_some_and(Value::is_object), "{}: its config.json has no config", no_run());
        let format = format(&versions).with_context(no_run)?;
        ensure!(format == FORMAT, unreadable(run, &versions, format));
        let record = serde_path_to_error::deserialize(config).with_context(|| match program(&versions) {
            Some(theirs) if theirs != env!("CARGO_PKG_VERSION") || format != FORMAT => {
                unreadable(run, &versions, format)
            }
            _ => format!("{} is damaged", run.join("config.json").display()),
        })?;
        Ok(Self { folder: run.to_owned(), record, versions })
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.record.config
    }

    /// Makes sure that the model at a path is the run's.
    ///
    /// # Errors
    /// Names the files that differ.
    pub fn check_base(&self, found: &ModelFingerprint, model: &Path) -> Result<()> {
        self.record.base_model.check(found, model, &self.folder)
    }

    /// The run's photos of a subject, counted from 0, in its own order, whatever their files are called now.
    ///
    /// # Errors
    /// Names a photo that is missing or new.
    pub fn arrange(&self, subject: usize, photos: Vec<Photo>, concept: &Path) -> Result<Vec<Photo>> {
        let RunRecord { photos: first, more_photos, .. } = &self.record;
        let recorded = std::iter::once(first).chain(more_photos).nth(subject);
        let refuse = |what: String| -> Result<Vec<Photo>> {
            bail!(
                "the photos in {} are not those of the run in {}: {what}; name the folder of those with --concept",
                concept.display(),
                self.folder.display()
            )
        };
        let mut left: VecDeque<Photo> = photos.into();
        let mut arranged = Vec::new();
        for photo in recorded.into_iter().flatten() {
            // Of several with the same bytes, the one with the same caption and mask.
            let is_same = |found: &Photo| SavedPhoto { file: photo.file.clone(), ..SavedPhoto::of(found) } == *photo;
            let at = left.iter().position(is_same);
            let at = at.or_else(|| left.iter().position(|found| found.sha256 == photo.sha256));
            match at.and_then(|at| left.remove(at)) {
                Some(photo) => arranged.push(photo),
                None => return refuse(format!("{} is missing or has other contents", photo.file)),
            }
        }
        match left.front() {
            Some(photo) => refuse(format!("{} was not there", photo.name())),
            None => Ok(arranged),
        }
    }

    /// Makes sure that a run resumes as it started, wherever its model and its photos are now; those of the record are in the
    /// run's order ([`SavedRun::arrange`]).
    ///
    /// # Errors
    /// Names the values that differ.
    pub fn check_same(&self, record: &RunRecord) -> Result<()> {
        let changes = differences(&without_paths(&self.record)?, &without_paths(record)?);
        ensure!(
            changes.is_empty(),
            "the run in {} cannot be resumed with another configuration: {}; leave that as it was, or start a new run",
            self.folder.display(),
            changes.join("; ")
        );
        let photos = |record: &'_ RunRecord| -> Vec<SavedPhoto> {
            std::iter::once(&record.photos).chain(&record.more_photos).flatten().cloned().collect()
        };
        for (was, is) in photos(&self.record).iter().zip(&photos(record)) {
            let what = if was.caption != is.caption { "caption" } else { "mask" };
            ensure!(
                (&was.caption, &was.mask) == (&is.caption, &is.mask),
                "the run in {} cannot be resumed with another {what} of {}; leave that as it was, or start a new run",
                self.folder.display(),
                is.file
            );
        }
        Ok(())
    }

    /// Records where the run's model and photos are now, if they have moved; `folder` is the run's.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record_moves(&self, config: &TrainConfig, folder: &RunFolder) -> Result<()> {
        let mut now = self.record.clone();
        now.config.clone_paths(config);
        if now == self.record {
            return Ok(());
        }
        folder.write_config(&now, self.versions.iter().map(|(name, version)| (name.as_str(), version.as_str())))
    }
}

/// What photos are, by their bytes.
pub fn by_contents<'a>(photos: impl IntoIterator<Item = &'a Photo>) -> Vec<SavedPhoto> {
    photos.into_iter().map(SavedPhoto::of).collect()
}

/// A record without paths, and without what is compared by its contents.
fn without_paths(record: &RunRecord) -> Result<Value> {
    let moved = |clip: &ModelFingerprint| ModelFingerprint { name: String::new(), ..clip.clone() };
    let mut record = serde_json::to_value(RunRecord {
        stop_clip: record.stop_clip.as_ref().map(moved),
        base_model: ModelFingerprint::default(),
        photos: Vec::new(),
        more_photos: Vec::new(),
        ..record.clone()
    })?;
    paths::clear(&mut record["config"]);
    Ok(record)
}

fn program(versions: &Versions) -> Option<&str> {
    versions.get("attndreambooth").map(String::as_str)
}

/// The format of a run's folder; none is recorded by the first.
fn format(versions: &Versions) -> Result<u32> {
    let Some(format) = versions.get("format") else { return Ok(1) };
    format.parse().with_context(|| format!("its config.json says that its format is {format:?}, which is no number"))
}

fn unreadable(run: &Path, versions: &Versions, format: u32) -> String {
    format!(
        "the run in {} has format {format}, written by version {}, but this version, {}, reads format {FORMAT}: use that \
         version, or train again",
        run.display(),
        program(versions).unwrap_or("unknown"),
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn says(config: &Value, versions: &Value) -> String {
        let folder = tempfile::tempdir().unwrap();
        let text =
            json!({ "config": config, "base_model": ModelFingerprint::default(), "versions": versions }).to_string();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        SavedRun::read(folder.path()).map_or_else(|error| format!("{error:#}"), |_| "understood".to_owned())
    }

    #[test]
    fn another_format_is_refused_with_both_numbers() {
        let ours = env!("CARGO_PKG_VERSION");
        assert_eq!(says(&json!({}), &json!({ "attndreambooth": ours, "format": "3" })), "understood");
        assert!(says(&json!({}), &json!({ "attndreambooth": "0.0.1" })).contains("has format 1"));
        let text = says(&json!({}), &json!({ "attndreambooth": "9.8.7", "format": "4" }));
        assert!(
            text.contains("has format 4, written by version 9.8.7, but") && text.contains("reads format 3"),
            "{text}"
        );
        assert!(text.contains(ours) && text.lines().count() == 1, "{text}");
        // Of no later format, but with values that are not known here.
        let text = says(&json!({ "old": 1 }), &json!({ "attndreambooth": "0.0.1", "format": "3" }));
        assert!(text.contains("written by version 0.0.1") && text.contains("old"), "{text}");
        let text = says(&json!({ "old": 1 }), &json!({ "attndreambooth": ours, "format": "3" }));
        assert!(text.contains("config.json is damaged") && text.contains("old"), "{text}");
        let text = says(&json!({}), &json!({ "format": "new" }));
        assert!(text.contains("its format is \"new\", which is no number"), "{text}");
        let text = says(&json!({}), &json!({ "format": [] }));
        assert!(text.contains("config.json is damaged"), "{text}");
        assert!(says(&json!(1), &json!({})).contains("has no config"));
    }

    #[test]
    fn only_paths_may_change() {
        let parent = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&parent.path().join("run")).unwrap();
        let record = |config: TrainConfig| RunRecord { config, ..RunRecord::default() };
        let config = TrainConfig { model: "/a".into(), concept: "/b".into(), ..TrainConfig::paper() };
        folder.write_record(&record(config.clone()), "2", "Cpu").unwrap();
        let written = std::fs::read(folder.path().join("config.json")).unwrap();
        let saved = SavedRun::read(folder.path()).unwrap();
        saved.record_moves(&config, &folder).unwrap();
        assert_eq!(std::fs::read(folder.path().join("config.json")).unwrap(), written);
        let config = TrainConfig { model: "/c".into(), concept: "/d".into(), ..config };
        saved.check_same(&record(config.clone())).unwrap();
        saved.record_moves(&TrainConfig { seed: 1, ..config.clone() }, &folder).unwrap();
        let moved = SavedRun::read(folder.path()).unwrap();
        assert_eq!((&moved.record, &moved.versions), (&record(config.clone()), &saved.versions));
        let error = saved.check_same(&record(TrainConfig { seed: 1, ..config })).unwrap_err().to_string();
        assert!(error.contains("configuration: config.seed was 0, is 1; leave"), "{error}");
    }

    #[test]
    fn what_another_process_has_otherwise_is_named_and_where_it_is_does_not_matter() {
        let photo = |file: &str, sha256: &str| SavedPhoto {
            file: file.to_owned(),
            sha256: sha256.to_owned(),
            ..SavedPhoto::default()
        };
        let config = |path: &str, seed: u64| TrainConfig { model: path.into(), seed, ..TrainConfig::paper() };
        let model = |sha256: &str| ModelFingerprint {
            name: "sd".to_owned(),
            sha256: [("unet".to_owned(), sha256.to_owned())].into(),
        };
        let of = |config: TrainConfig, base_model, photos: Vec<SavedPhoto>| RunRecord {
            config,
            base_model,
            photos,
            ..RunRecord::default()
        };
        let ours = of(config("/a", 0), model("1"), vec![photo("a.png", "2")]);
        let says = |other: &RunRecord| ours.difference(other).unwrap();
        assert_eq!(says(&of(config("/b", 0), model("1"), vec![photo("b.png", "2")])), None);
        let said = says(&of(config("/a", 5), model("1"), vec![photo("a.png", "2")]));
        assert_eq!(said.unwrap(), "another configuration (config.seed was 0, is 5)");
        let said = says(&of(config("/a", 0), model("3"), vec![photo("a.png", "2")]));
        assert_eq!(said.unwrap(), "another base model (sd is not sd)");
        let said = says(&of(config("/a", 0), model("1"), vec![photo("b.png", "4")]));
        assert_eq!(said.unwrap(), "other photos (b.png in place of a.png)");
        assert_eq!(says(&of(config("/a", 0), model("1"), Vec::new())).unwrap(), "other photos (0 instead of 1)");
        let captioned = SavedPhoto { caption: Some("a cat".to_owned()), ..photo("a.png", "2") };
        let said = says(&of(config("/a", 0), model("1"), vec![captioned]));
        assert_eq!(said.unwrap(), "another caption or mask of a.png");
    }
}
