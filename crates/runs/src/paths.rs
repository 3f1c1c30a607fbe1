//! The paths in a configuration: made absolute, told from what a run is, and kept apart from each other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use serde_json::Value;

use crate::{Stop, TrainConfig, layout};

/// The values that say where something is, and not what.
const PATHS: [&[&str]; 6] = [
    &["model"],
    &["model_options", "tokenizer"],
    &["model_options", "config"],
    &["concept"],
    &["prior", "folder"],
    &["stop", "clip", "model"],
];

/// Takes out of a configuration what may change when its files are moved.
pub(crate) fn clear(config: &mut Value) {
    for path in PATHS {
        if let Some(value) = path.iter().try_fold(&mut *config, |value, key| value.get_mut(key)) {
            *value = Value::Null;
        }
    }
    for further in config.get_mut("more_concepts").and_then(Value::as_array_mut).into_iter().flatten() {
        further["concept"] = Value::Null;
    }
}

impl TrainConfig {
    /// What tells one run from others: everything but the paths of the model and the photos.
    ///
    /// # Errors
    /// None in practice: a configuration can always be written as JSON.
    pub fn identity(&self) -> Result<Value> {
        let mut config = serde_json::to_value(self)?;
        clear(&mut config);
        Ok(config)
    }

    /// Takes the paths of another configuration, of those values that both have.
    pub(crate) fn clone_paths(&mut self, other: &Self) {
        self.model.clone_from(&other.model);
        self.concept.clone_from(&other.concept);
        let (options, others) = (&mut self.model_options, &other.model_options);
        for (own, other) in [(&mut options.tokenizer, &others.tokenizer), (&mut options.config, &others.config)] {
            if own.is_some() && other.is_some() {
                own.clone_from(other);
            }
        }
        for (own, other) in self.more_concepts.iter_mut().zip(&other.more_concepts) {
            own.concept.clone_from(&other.concept);
        }
        if let (Some(own), Some(other)) = (&mut self.prior, &other.prior) {
            own.folder.clone_from(&other.folder);
        }
        let clips = (self.stop.as_mut().and_then(Stop::clip_mut), other.stop.as_ref().and_then(Stop::clip));
        if let (Some(own), Some(other)) = clips {
            own.model.clone_from(&other.model);
        }
    }
}

/// Makes the configuration's paths absolute; the run's own folder of prior images, which moves with the run, is none.
///
/// # Errors
/// When the folder of prior images has another purpose too.
pub fn settle_paths(config: &mut TrainConfig, out: &Path) -> Result<()> {
    let further = config.more_concepts.iter_mut().map(|further| &mut further.concept);
    let clip = config.stop.as_mut().and_then(Stop::clip_mut).map(|clip| &mut clip.model);
    let paths = [&mut config.model, &mut config.concept].into_iter().chain(&mut config.init_from);
    for path in paths.chain(further).chain(clip) {
        *path = absolute(path)?;
    }
    let Some(prior) = &mut config.prior else { return Ok(()) };
    let Some(folder) = &prior.folder else { return Ok(()) };
    if same(folder, &out.join(layout::PRIOR)) {
        prior.folder = None;
        return Ok(());
    }
    let folder = absolute(folder)?;
    let photos = if config.concept.is_file() { config.concept.parent() } else { Some(config.concept.as_path()) };
    for (taken, what) in
        [(photos, "the photos'"), (Some(out), "the run's"), (Some(config.model.as_path()), "the model's")]
    {
        ensure!(
            !taken.is_some_and(|taken| same(taken, &folder)),
            "the folder of prior images {} is {what} own: give another --prior-folder",
            folder.display()
        );
    }
    prior.folder = Some(folder);
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("the path {:?} cannot be used", path.display()))
}

/// Whether two paths lead to one folder, through links and `..` too, and where it does not exist yet.
fn same(a: &Path, b: &Path) -> bool {
    real(a).is_some_and(|a| real(b) == Some(a))
}

/// A path without links, as far as it exists.
fn real(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let there = |above: &Path| Some(fs::canonicalize(above).ok()?.join(absolute.strip_prefix(above).ok()?));
    // Without joining nothing, which would add a slash to a file's path.
    fs::canonicalize(&absolute).ok().or_else(|| absolute.ancestors().skip(1).find_map(there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prior;

    #[test]
    fn prior_images_have_a_folder_of_their_own() {
        let parent = tempfile::tempdir().unwrap();
        let [photos, out, model] = ["photos", "out", "model"].map(|name| parent.path().join(name));
        [&photos, &out, &model].iter().for_each(|folder| fs::create_dir(folder).unwrap());
        fs::write(photos.join("a.png"), "").unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&photos, &link).unwrap();
        let settle = |concept: &Path, folder: &Path| {
            let prior = Some(Prior { folder: Some(folder.to_owned()), ..Prior::default() });
            let mut config =
                TrainConfig { concept: concept.to_owned(), model: model.clone(), prior, ..TrainConfig::paper() };
            settle_paths(&mut config, &out).map(|()| config.prior.unwrap().folder)
        };
        for (concept, folder) in [
            (&photos, photos.clone()),
            (&photos, link.clone()),
            (&link, out.join("../photos")),
            (&photos.join("a.png"), photos.clone()),
            (&photos, out.clone()),
            (&photos, model.join(".")),
        ] {
            let error = settle(concept, &folder).unwrap_err().to_string();
            assert!(error.contains("--prior-folder"), "{error}");
        }
        assert_eq!(settle(&photos, &out.join("../out/prior")).unwrap(), None);
        assert_eq!(settle(&photos, &parent.path().join("new")).unwrap(), Some(parent.path().join("new")));
        assert!(settle(&photos, "new".as_ref()).unwrap().unwrap().is_absolute());
    }
}
